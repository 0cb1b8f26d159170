/* The network on a processor that has 40 instructions, none of which multiplies: RV32I, under Linux or qemu-riscv32.
   Bytes of images from standard input, one after the other; logits, 32 bits each, to standard output. There is no C
   library, and no library of the compiler's. The exit status is 0, or 1 where an image is cut short or the network is
   damaged. */

#include "engine.c"
#include "freestanding.h"
#include "network_file.h"

enum { READ = 63, WRITE = 64, EXIT = 93, BREAK = 214 };

static long call(long number, long a, const void *b, long c)
{
    register long a0 __asm__("a0") = a, a1 __asm__("a1") = (long)b, a2 __asm__("a2") = c, a7 __asm__("a7") = number;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a7) : "memory");
    return a0;
}

/* Memory that is 0 and begins at a multiple of 64 bytes; 0 where there is none. */
static uint8_t *allocate(long bytes)
{
    const long begin = (call(BREAK, 0, 0, 0) + 63) & -64;
    return call(BREAK, begin + bytes, 0, 0) == begin + bytes ? (uint8_t *)begin : 0;
}

/* Moves all the bytes, or returns how many there were. */
static long all(long number, long file, uint8_t *bytes, long count)
{
    long done = 0;
    while (done < count) {
        const long some = call(number, file, bytes + done, count - done);
        if (some <= 0) break;
        done += some;
    }
    return done;
}

static int classify_all(void)
{
    struct network network;
    if (snn_open(&network, network_file, sizeof network_file)) return 1;
    const long logits_bytes = network.is.classes << 2;
    uint8_t *tables = allocate(network.is.tables), *memory = allocate(network.is.memory);
    uint8_t *image = allocate(network.is.image), *logits = allocate(logits_bytes);
    if (!tables || !memory || !image || !logits) return 1;
    snn_prepare(&network, tables);
    long bytes;
    while ((bytes = all(READ, 0, image, network.is.image)) == network.is.image) {
        snn_run(&network, image, 1, (int32_t *)logits, memory);
        if (all(WRITE, 1, logits, logits_bytes) < logits_bytes) return 1;
    }
    return bytes != 0;
}

void _start(void)
{
    call(EXIT, classify_all(), 0, 0);
    __builtin_unreachable();
}
