/* The same in float64. */
#define DOUBLE
#include "convolution.c"
