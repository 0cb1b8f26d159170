/* A folded network of leaky integrate-and-fire neurons as a program that only adds.

   The bytes of one image go in, whole logits come out. In between there are spikes, packed in bits, and sums of the
   weights that they select, in 16 bits: the exporter has proved that these suffice. The instructions that this file
   becomes add, subtract, compare, shift, select and look up; none multiplies. instructions.py reads them one by one.

   A network is a file of 32-bit words, which exporting.py writes: a header, layers (struct layer), and constants.
   Spikes lie in columns, `steps` of them for each place: bit c of column t is neuron c at time step t. */

#include "lanes.h"

enum { MAGIC = 0x314E4E53, MOST_STEPS = 32, MOST_UNITS = 6, CHUNK = 8 };
enum { COPY, PATCHES, TRANSPOSE, LINES, ROWS, TABLES, SELECT };

/* One layer. Offsets count bytes: of `constants` where said so, else of the memory of one image; 0 means none. */
struct layer {
    int32_t kind, places, parts, part_bytes; /* each place reads columns of `parts` others, each of so many bytes */
    int32_t sources;                         /* constants: [places][parts], where their columns begin */
    int32_t in_steps, in_step;               /* columns read, and bytes from one to the next */
    int32_t rows, rows_step, pass_bytes;     /* weights: the first, bytes to those of the next step or pass */
    int32_t group, raw, inputs;              /* tables: bits that number a row; constants: rows to make them of, how many */
    int32_t size;                            /* registers of outputs in a pass */
    int32_t lanes, fired;                    /* outputs, and how many of them drive neurons, in whole registers */
    int32_t before, before_step, shift;      /* constants: what is added to a sum before its shift */
    int32_t channels;                        /* constants: which bits of a column there are */
    int32_t wide;                            /* whether currents take 32 bits */
    int32_t extra, more, extra_place, extra_step; /* currents from elsewhere */
    int32_t keep, keep_place, keep_step;          /* where currents are kept */
    int32_t spikes, spikes_place, spikes_step;    /* where spikes go */
    int32_t neuron, neuron_place;                 /* constants: struct neuron, one for all or one for each place */
    int32_t leak, forgets, soft, plain;           /* bits of the leak; no membrane stays; reset by subtraction; see fire */
};

struct neuron { int32_t above, theta, turned, driven, bias; };

/* The first 64 bytes of a file. `image`, `memory` and `tables` say how many bytes each takes. */
struct header {
    int32_t magic, bytes, checksum, steps, layers, constants, memory, tables, lists, logits, classes;
    int32_t image, channels, height, width, unused;
};

struct network {
    struct header is;
    const struct layer *layers;
    const uint8_t *constants;
    uint8_t *tables;
};

/* The sum of the rows in a list, two at a time. A row is `units` of 32 bytes: the weight to lane j, plus 64, then the
   weight to lane j + 16, and so on in turn. Two rows add up in bytes, since no weight exceeds 63. In 16-bit lanes the
   whole of them is added, and the upper byte by itself; what it left in the whole is taken off at the end. */
INLINE void sum_rows(shorts *sums, const int units, const uint16_t *list, const uint16_t *end, const unit *rows)
{
    const uint16_t biases = (uint16_t)((end - list) << 6);
    const int pairs = TWO_AT_ONCE ? units / 2 : 0;
    words whole[MOST_UNITS];
    shorts upper[MOST_UNITS];
    words_pair whole2[MOST_UNITS / 2];
    shorts_pair upper2[MOST_UNITS / 2];
    UNROLL for (int u = 0; u < units; u++) whole[u] = (words){0}, upper[u] = (shorts){0};
    UNROLL for (int u = 0; u < pairs; u++) whole2[u] = (words_pair){0}, upper2[u] = (shorts_pair){0};
    for (; list < end; list += 2) {
        const unit *a = rows + times(list[0], (unsigned)units), *b = rows + times(list[1], (unsigned)units);
        UNROLL for (int u = 0; u < pairs; u++) {
            const unit_pair both = ((const unit_pair *)a)[u] + ((const unit_pair *)b)[u];
            whole2[u] += (words_pair)both;
            upper2[u] += (shorts_pair)both >> 8;
        }
        UNROLL for (int u = pairs + pairs; u < units; u++) {
            const unit both = a[u] + b[u];
            whole[u] += (words)both;
            upper[u] += (shorts)both >> 8;
        }
    }
    UNROLL for (int u = 0; u < pairs; u++) {
        whole[2 * u] = FIRST_HALF(whole2[u]), whole[2 * u + 1] = SECOND_HALF(whole2[u]);
        upper[2 * u] = FIRST_HALF(upper2[u]), upper[2 * u + 1] = SECOND_HALF(upper2[u]);
    }
    UNROLL for (int u = 0; u < units; u++) {
        sums[2 * u] = (shorts)(whole[u] - ((words)upper[u] << 8) - biases);
        sums[2 * u + 1] = upper[u];
    }
}

/* The same from tables, which hold the sums of all patterns of a byte, or of half a byte: no spike is looked for. */
INLINE void sum_tables(shorts *sums, const int size, const int group, const uint8_t *memory, const int32_t *source,
                       int parts, int bytes, const shorts *table)
{
    shorts a[MOST_UNITS];
    UNROLL for (int r = 0; r < size; r++) a[r] = (shorts){0};
    for (const int32_t *end = source + parts; source < end; source++) {
        const uint8_t *column = memory + *source;
        UNROLL_3 for (const uint8_t *last = column + bytes; column < last; column++)
            UNROLL for (int bit = 0; bit < 8; bit += group, table += size << group) {
                const shorts *row = table + times(*column >> bit & ((1u << group) - 1), (unsigned)size);
                UNROLL for (int r = 0; r < size; r++) a[r] += row[r];
            }
    }
    UNROLL for (int r = 0; r < size; r++) sums[r] = a[r];
}

/* A constant of its own for each spike: what batch norm of spikes folds to. */
INLINE shorts select_constants(const uint8_t *column, const shorts *constants)
{
    const shorts powers = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768};
    return ((((shorts){0} + (int16_t)*(const word16 *)column) & powers) == powers) & *constants;
}

/* Where one place reads and writes besides its columns. */
struct place { int32_t extra, keep, spikes, neuron; };

/* The neurons of one place, 16 at a time, through all steps:
       current = ((sum + before) >> shift) + other currents,   potential = (membrane >> leak) + current;
   above its threshold a neuron fires and is reset. A plain layer's neurons have one threshold and are reset to 0, its
   currents have 16 bits and are not shifted to the right, but in the stem; with constants for the last arguments no branch is left. */
#define DEFINE_FIRE(name, vector, scalar, log2_bytes, widened, narrowed)                                               \
    INLINE void name(const struct network *net, const struct layer *l, uint8_t *memory, struct place at, int first,    \
                     int registers, const shorts *sums, const int sums_step, const int steps, const int shifts,        \
                     const int extra, const int keep, const int plain)                                                 \
    {                                                                                                                  \
        const struct neuron *is = (const struct neuron *)(net->constants + at.neuron);                                 \
        const scalar above = (scalar)is->above, theta = (scalar)is->theta, bias = (scalar)is->bias,                    \
                     turned = (scalar)is->turned, driven = (scalar)is->driven;                                         \
        const int left = l->shift < 0 ? -l->shift : 0, right = l->shift > 0 ? l->shift : 0, leak = l->leak;            \
        for (int r = 0, q = first; r < registers; r++, q += LANES) {                                                   \
            const uint8_t *before = net->constants + l->before + q + q, *from = memory + at.extra + (q << log2_bytes); \
            uint8_t *to = memory + at.keep + (q << log2_bytes), *spikes = memory + at.spikes + (q >> 3);               \
            const shorts *sum = sums + r;                                                                              \
            const int more = l->more - l->extra;                                                                       \
            vector v = {0};                                                                                            \
            UNROLL for (int t = 0; t < steps; t++, sum += sums_step) {                                                 \
                vector x = widened((*sum + *(const shorts *)before));                                                  \
                if (shifts & 1) x <<= left;                                                                            \
                if (shifts & 2) x >>= right;                                                                           \
                if (extra) x += *(const vector *)from;                                                                 \
                if (!plain && l->more) x += *(const vector *)(from + more);                                            \
                if (keep) *(vector *)to = x;                                                                           \
                if (plain) *(word16 *)spikes = (word16)name##_and_reset(&v, (v >> leak) + x, above);                   \
                else if (q < l->fired) {                                                                               \
                    const vector u = (v >> leak) + (x & driven) + bias, fires = (u ^ turned) > above;                  \
                    v = l->soft ? u - (fires & theta) : u & ~fires;                                                    \
                    if (l->forgets) v = (vector){0};                                                                   \
                    *(word16 *)spikes = (word16)bits_of(narrowed(fires));                                              \
                }                                                                                                      \
                spikes += l->spikes_step, from += l->extra_step, to += l->keep_step;                                   \
                if (!plain) before += l->before_step;                                                                  \
            }                                                                                                          \
        }                                                                                                              \
    }
#define AS_IT_IS(x) (x)
#define TO_LONGS(x) __builtin_convertvector(x, longs)
#define TO_SHORTS(x) __builtin_convertvector(x, shorts)
#define fire_wide_and_reset(v, u, above) 0 /* currents of 32 bits are never plain */
DEFINE_FIRE(fire, shorts, int16_t, 1, AS_IT_IS, AS_IT_IS)
DEFINE_FIRE(fire_wide, longs, int32_t, 2, TO_LONGS, TO_SHORTS)

static __attribute__((noinline)) void fire_any(const struct network *net, const struct layer *l, uint8_t *memory,
                                               struct place at, int first, int registers, const shorts *sums, int step)
{
    const int steps = net->is.steps;
    if (l->wide) fire_wide(net, l, memory, at, first, registers, sums, step, steps, 3, l->extra, l->keep, 0);
    else fire(net, l, memory, at, first, registers, sums, step, steps, 3, l->extra, l->keep, 0);
}

INLINE void fire_place(const struct network *net, const struct layer *l, uint8_t *memory, struct place at, int first,
                       int size, const shorts *sums, const int step, const int shifts)
{
    const int left = (l->lanes - first) >> LOG2_LANES, registers = size < left ? size : left;
#define FIRE_PLAIN(extra, keep) fire(net, l, memory, at, first, registers, sums, step, 4, shifts, extra, keep, 1)
    if (!VECTORS || !l->plain) fire_any(net, l, memory, at, first, registers, sums, step);
    else if (l->extra && l->keep) FIRE_PLAIN(1, 1);
    else if (l->extra) FIRE_PLAIN(1, 0);
    else if (l->keep) FIRE_PLAIN(0, 1);
    else FIRE_PLAIN(0, 0);
}

/* A map and the neurons behind it: a few places at a time, and of their outputs `size` registers at a time. */
INLINE void map(const struct network *net, const struct layer *l, uint8_t *memory, const int kind, const int size)
{
    shorts sums[MOST_STEPS * MOST_UNITS * 2];
    uint16_t *ends[CHUNK * MOST_STEPS + 1];
    const struct bits *bits = (const struct bits *)net->tables;
    const int32_t *sources = (const int32_t *)(net->constants + l->sources);
    const uint8_t *weights = (kind == TABLES ? net->tables : net->constants) + l->rows;
    struct place place = {l->extra, l->keep, l->spikes, l->neuron}, begin = place;

    for (int left = l->places; left > 0; left -= CHUNK, begin = place) {
        const int chunk = left < CHUNK ? left : CHUNK;
        const int32_t *source = sources;
        uint16_t *list = (uint16_t *)(memory + net->is.lists), **end = ends;
        *end = list;
        if (kind == ROWS)
            for (int p = 0; p < chunk; p++, source += l->parts)
                for (int t = 0, step = 0; t < l->in_steps; t++, step = further(step, l->in_step)) {
                    int row = 0;
                    for (int i = 0; i < l->parts; i++, row = further(row, l->part_bytes << 3))
                        list = list_spikes(list, bits, memory + source[i] + step, l->part_bytes, row);
                    *list = (uint16_t)row; /* a row of zeros, where the number is odd */
                    list += (list - *end) & 1;
                    *++end = list;
                }
        const uint8_t *rows = weights;
        for (int first = 0; first < l->lanes; first += LANES * size, rows += l->pass_bytes) {
            source = sources, end = ends, place = begin;
            for (int p = 0; p < chunk; p++, source += l->parts) {
                const uint8_t *now = rows;
                shorts *sum = sums;
                for (int t = 0, step = 0; t < l->in_steps; t++, step += l->in_step, sum += size, now += l->rows_step, end++) {
                    const shorts *table = (const shorts *)now;
                    if (kind == ROWS) sum_rows(sum, size / 2, end[0], end[1], (const unit *)now);
                    if (kind == SELECT) *sum = select_constants(memory + *source + step + (first >> 3), table);
                    if (kind == TABLES && l->group == 8) sum_tables(sum, size, 8, memory + step, source, l->parts, l->part_bytes, table);
                    if (kind == TABLES && l->group == 4) sum_tables(sum, size, 4, memory + step, source, l->parts, l->part_bytes, table);
                }
                if (l->in_steps == 1) fire_place(net, l, memory, place, first, size, sums, 0, 2); /* the stem */
                else fire_place(net, l, memory, place, first, size, sums, size, kind == ROWS);
                place.extra += l->extra_place, place.keep += l->keep_place;
                place.spikes += l->spikes_place, place.neuron += l->neuron_place;
            }
        }
        sources = source;
    }
}

#define MAP(kind, size) static __attribute__((noinline)) void map_##kind##_##size( \
    const struct network *net, const struct layer *l, uint8_t *memory) { map(net, l, memory, kind, size); }
MAP(ROWS, 2) MAP(ROWS, 4) MAP(ROWS, 6) MAP(ROWS, 8) MAP(ROWS, 10) MAP(ROWS, 12)
MAP(TABLES, 1) MAP(TABLES, 2) MAP(TABLES, 3) MAP(TABLES, 4) MAP(TABLES, 5) MAP(TABLES, 6) MAP(SELECT, 1)

INLINE uint64_t take(const uint8_t *memory, const int32_t *from)
{
    uint64_t x = 0;
    UNROLL for (int i = 0; i < 8; i++) x |= (uint64_t)memory[from[i]] << 8 * i;
    return x;
}

INLINE void put(uint8_t *memory, const int32_t *to, uint64_t x)
{
    UNROLL for (int i = 0; i < 8; i++) memory[to[i]] = (uint8_t)(x >> 8 * i);
}

/* Columns over channels become columns over positions, or the reverse: bit i of byte j becomes bit j of byte i. */
static void transpose(const struct network *net, const struct layer *l, uint8_t *memory)
{
    const struct block { int32_t from[8], to[8]; } *block = (const struct block *)(net->constants + l->sources);
    for (int n = 0; n < l->places; n++, block++) {
        uint8_t *in = memory, *out = memory;
        for (int t = 0; t < net->is.steps; t++, in += l->in_step, out += l->spikes_step)
            put(out, block->to, transposed(take(in, block->from)));
    }
}

/* Eight vectors, of which each is interleaved with the one four further on: thrice this transposes 8 x 8 bytes. */
INLINE void interleave(sixteen *v)
{
    sixteen w[8];
    UNROLL for (int i = 0; i < 4; i++) w[2 * i] = INTERLEAVE_LOW(v[i], v[i + 4]), w[2 * i + 1] = INTERLEAVE_HIGH(v[i], v[i + 4]);
    UNROLL for (int i = 0; i < 8; i++) v[i] = w[i];
}

/* Mixing within lines of at most 16 positions. A byte of spikes from each of them, transposed, gives 8 numbers of 16
   bits, one for each channel: which positions fired. Its two halves number the rows of two tables. */
INLINE void mix_lines(const struct network *net, const struct layer *l, uint8_t *memory, const int steps)
{
    const struct line { int32_t from[16], to[16]; } *line = (const struct line *)(net->constants + l->sources);
    const struct neuron *is = (const struct neuron *)(net->constants + l->neuron);
    const int16_t above = (int16_t)is->above, theta = (int16_t)is->theta;
    const int leak = l->leak, step = l->in_step, plain = l->plain;
    const uint8_t *tables = net->tables + l->rows, *constants = net->constants + l->before;
    const uint8_t *channels = net->constants + l->channels;
    uint16_t(*fired)[8] = (uint16_t(*)[8])(memory + net->is.lists);
    sixteen *out = (sixteen *)(memory + l->keep);
    for (int n = 0; n < l->places; n++, line++) {
        for (int b = 0; b < l->part_bytes; b += 8) {
            sixteen v[8];
            UNROLL for (int i = 0; i < 8; i++) {
                const word64 *low = (const word64 *)(memory + line->from[i] + b), *high = (const word64 *)(memory + line->from[i + 8] + b);
                v[i] = INTERLEAVE_LOW(((sixteen)(words64){*low, 0}), ((sixteen)(words64){*high, 0}));
            }
            interleave(v), interleave(v), interleave(v);
            UNROLL for (int i = 0; i < 8; i++)
                for (int c = 7; c >= 0; c--, v[i] += v[i]) fired[b + i][c] = (uint16_t)top_bits_of(v[i]);
        }
        for (int g = 0; g < step; g++) {
            if (!channels[g]) continue;
            sixteen now[MOST_STEPS];
            UNROLL for (int t = 0; t < steps; t++) now[t] = (sixteen){0};
            uint8_t bit = 1;
            for (int c = 0; c < 8; c++, bit = (uint8_t)(bit + bit)) {
                shorts v = {0};
                const uint8_t *table = tables, *before = constants;
                UNROLL for (int t = 0, at = g; t < steps; t++, at = further(at, step), table += l->rows_step, before += l->before_step) {
                    const shorts *sums = (const shorts *)table;
                    const unsigned number = fired[at][c];
                    shorts u = (v >> leak) + *(const shorts *)before + sums[number & 255] + sums[256 + (number >> 8)];
                    if (plain) now[t] = fire_into_bytes(now[t], bit, &v, u, above);
                    else {
                        const shorts fires = u > above;
                        v = l->soft ? u - (fires & theta) : u & ~fires;
                        if (l->forgets) v = (shorts){0};
                        now[t] += narrow(fires) & bit;
                    }
                }
            }
            UNROLL for (int t = 0, at = g; t < steps; t++, at = further(at, step)) out[at] = now[t] & channels[g];
        }
        for (int b = 0; b < l->part_bytes; b += 8) {
            sixteen v[8];
            UNROLL for (int i = 0; i < 8; i++) v[i] = out[b + i];
            interleave(v), interleave(v), interleave(v);
            UNROLL for (int i = 0; i < 8; i++) {
                *(word64 *)(memory + line->to[2 * i] + b) = ((words64)v[i])[0];
                *(word64 *)(memory + line->to[2 * i + 1] + b) = ((words64)v[i])[1];
            }
        }
    }
}

static void run_lines(const struct network *net, const struct layer *l, uint8_t *memory)
{
    if (net->is.steps == 4) mix_lines(net, l, memory, 4);
    else mix_lines(net, l, memory, net->is.steps);
}

/* What is the same for all images: lists of set bits, and tables of the sums of every pattern of a few rows. */
void snn_prepare(struct network *net, uint8_t *tables)
{
    struct bits *bits = (struct bits *)(net->tables = tables);
    for (int i = 0; i < 32; i++) bits->numbers[i] = (uint16_t)i;
    for (int byte = 0; byte < 256; byte++) {
        bits->count[byte] = 0;
        for (int bit = 0; bit < 8; bit++) if (byte >> bit & 1) bits->set[byte][bits->count[byte]++] = (uint16_t)bit;
        for (int i = bits->count[byte]; i < 8; i++) bits->set[byte][i] = 0;
    }
    const struct layer *l = net->layers;
    for (unsigned left = (unsigned)net->is.layers; left; left = opaque(left - 1), l++) {
        if (l->kind != TABLES && l->kind != LINES) continue;
        shorts *table = (shorts *)(tables + l->rows), *made = table;
        const shorts *row = (const shorts *)(net->constants + l->raw);
        const int group = l->group == 4 ? 4 : 8;
        for (int n = 0; n < l->inputs; n += group, table = made) {
            for (int r = 0; r < l->size; r++) *made++ = (shorts){0};
            for (int bit = 0; bit < group; bit++, row += l->size) /* the patterns so far, and each with one bit more */
                for (shorts *old = table, *end = made; old < end; )
                    for (int r = 0; r < l->size; r++) *made++ = *old++ + row[r];
        }
    }
}

/* Reads a network from the words of a file; returns 0, or what is wrong with it. `bytes` is the size of the file. */
const char *snn_open(struct network *net, const uint8_t *file, uint32_t bytes)
{
    const struct header *is = (const struct header *)file;
    if (bytes < sizeof *is || is->magic != MAGIC) return "it is not a network of snnmlp-edu";
    if (bytes != (uint32_t)is->bytes || bytes & 3) return "it is cut short, or something was added to it";
    uint32_t sum = 0, sums = 0;
    for (const uint32_t *word = (const uint32_t *)(&is->checksum + 1); word < (const uint32_t *)(file + bytes); word++)
        sums += sum += *word;
    if ((sum ^ (sums << 1 | sums >> 31)) != (uint32_t)is->checksum) return "it is damaged: its checksum is another";
    net->is = *is;
    net->layers = (const struct layer *)(file + sizeof *is);
    net->constants = file + is->constants;
    return 0;
}

/* Pixels in the order of the patches that they are in; black where there is no pixel. */
static void cut_patches(const int32_t *pixels, int count, uint8_t *columns, const uint8_t *image)
{
    for (int i = 0; i < count; i++) columns[i] = pixels[i] < 0 ? 0 : image[pixels[i]];
}

static void run_layer(const struct network *net, const struct layer *l, uint8_t *memory, const uint8_t *image)
{
#define CASE(kind, size) case size: map_##kind##_##size(net, l, memory); return;
    switch (l->kind) {
        case COPY: for (int i = 0; i < l->part_bytes; i++) memory[l->keep + i] = net->constants[l->sources + i]; return;
        case PATCHES: cut_patches((const int32_t *)(net->constants + l->sources), l->places, memory + l->spikes, image); return;
        case TRANSPOSE: transpose(net, l, memory); return;
        case LINES: run_lines(net, l, memory); return;
        case SELECT: map_SELECT_1(net, l, memory); return;
        case ROWS: switch (l->size) { CASE(ROWS, 2) CASE(ROWS, 4) CASE(ROWS, 6) CASE(ROWS, 8) CASE(ROWS, 10) CASE(ROWS, 12) } return;
        case TABLES: switch (l->size) { CASE(TABLES, 1) CASE(TABLES, 2) CASE(TABLES, 3) CASE(TABLES, 4) CASE(TABLES, 5) CASE(TABLES, 6) }
    }
}

/* Classifies images one after the other; `memory` was 0 at first, and no other thread uses it. */
void snn_run(const struct network *net, const uint8_t *images, int count, int32_t *logits, uint8_t *memory)
{
    for (; count > 0; count--, images += net->is.image) {
        const struct layer *l = net->layers;
        for (unsigned left = (unsigned)net->is.layers; left; left = opaque(left - 1), l++) run_layer(net, l, memory, images);
        for (int k = 0; k < net->is.classes; k++) *logits++ = ((const int32_t *)(memory + net->is.logits))[k];
    }
}
