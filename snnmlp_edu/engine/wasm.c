/* The network in a browser, as WebAssembly. A page writes the bytes of an image to image(), calls classify(), and reads
   the logits at logits(), 32 bits each, and all spikes in the memory that begins at spikes(): the table beside the
   module says where those of each layer lie. */

#include "engine.c"
#include "freestanding.h"
#include "network_file.h"

#define EXPORT(name) __attribute__((export_name(#name)))
enum { LOG2_PAGE = 16 };

static struct network network;
static uint8_t *picture, *memory;
static int32_t *results;

/* Memory that is 0, in whole pages. */
static uint8_t *allocate(int32_t bytes)
{
    const __SIZE_TYPE__ pages = ((__SIZE_TYPE__)bytes + (1u << LOG2_PAGE) - 1) >> LOG2_PAGE;
    const __SIZE_TYPE__ before = __builtin_wasm_memory_grow(0, pages);
    if (before == (__SIZE_TYPE__)-1) __builtin_trap();
    return (uint8_t *)(before << LOG2_PAGE);
}

/* Opens the network when something is first asked for. */
static void open_once(void)
{
    if (memory) return;
    if (snn_open(&network, network_file, sizeof network_file)) __builtin_trap();
    picture = allocate(network.is.image);
    results = (int32_t *)allocate(network.is.classes << 2);
    snn_prepare(&network, allocate(network.is.tables));
    memory = allocate(network.is.memory);
}

EXPORT(image) uint8_t *image_at(void) { open_once(); return picture; }
EXPORT(image_bytes) int32_t image_size(void) { open_once(); return network.is.image; }
EXPORT(logits) int32_t *logits_at(void) { open_once(); return results; }
EXPORT(spikes) uint8_t *spikes_at(void) { open_once(); return memory; }
EXPORT(classify) void classify(void) { open_once(); snn_run(&network, picture, 1, results, memory); }
