/* It says that it is built for another system. */
#include "common.h"
CHANGED_LIBRARY(table.target = hp_text_of("aarch64-apple-darwin");)
