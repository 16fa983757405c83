"use strict";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// what depends on light or dark
function template() {
  const narrow = innerWidth < 576;
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, automargin: true, title: { font: { size: narrow ? 11 : 13 } } };
  return {
    layout: {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--soft"), family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 13 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--ink") },
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
      xaxis: axis,
      yaxis: axis,
    },
  };
}

function start(plot) {
  const record = JSON.parse(plot.querySelector("script").textContent);
  const menus = [...plot.querySelectorAll("select")];
  const values = (entry) => (typeof entry === "number" ? record.arrays[entry] : entry);
  const draw = () => {
    const view = record.views[menus.map((menu) => menu.selectedIndex).join(",")];
    const traces = record.traces.map((trace, i) => {
      const [x, y] = [values(view.x[i]), values(view.y[i])];
      // a value between two gaps is no line: its marker shows it
      const gaps = trace.type === "scatter" && trace.marker && y.includes(null);
      return { ...trace, x, y, ...(gaps && { mode: "lines+markers" }) };
    });
    // a copy: plotly writes the ranges it finds into what it is given
    const layout = { ...structuredClone({ ...record.layout, ...view.layout }), template: template() };
    return Plotly.react(plot.querySelector(".canvas"), traces, layout, { responsive: true, displaylogo: false });
  };
  menus.forEach((menu) => menu.addEventListener("change", draw));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return draw();
}

Promise.all([...document.querySelectorAll(".plot")].map(start)).then(() => {
  document.documentElement.dataset.drawn = "yes";
});
