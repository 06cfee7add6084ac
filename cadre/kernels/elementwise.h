#pragma once

/// The row-wise and element-wise kernels of a transformer, all at once.

#include "cadre/kernels/activation.h"
#include "cadre/kernels/norm.h"
#include "cadre/kernels/rotary.h"
#include "cadre/kernels/softmax.h"
