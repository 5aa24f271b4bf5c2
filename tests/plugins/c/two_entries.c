/* It has the symbol of a library in Rust, too. */
#include "common.h"
HP_EXPORT extern int _1as_0lib_1header_0root_bmodule_bloader;
int _1as_0lib_1header_0root_bmodule_bloader = 0;
HP_LIBRARY(KINDS, create, handle, destroy)
