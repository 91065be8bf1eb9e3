#pragma once

// Symbols are hidden by default. RESRT_API marks the public ones.
#define RESRT_API __attribute__((visibility("default")))
