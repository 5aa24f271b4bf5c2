/* It is built for another major version of the ABI. */
#include "common.h"
CHANGED_LIBRARY(table.major = 2;)
