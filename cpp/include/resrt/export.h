#pragma once

// Symbols are hidden by default; what carries RESRT_API is the library's contract.
#define RESRT_API __attribute__((visibility("default")))
