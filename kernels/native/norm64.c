/* The same in float64. */
#define DOUBLE
#include "norm.c"
