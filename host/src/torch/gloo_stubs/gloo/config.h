// Declares what c10d's header names of gloo; see context.h.
#pragma once
