// The views are plain values; this file makes their headers compile on their own.
#include "scheduler/view/request.h"
#include "scheduler/view/worker.h"
