/* The same in float64: for float64 tokens, and for tests that hold the algorithm to 1e-9. */
#define DOUBLE
#include "lanes.c"
