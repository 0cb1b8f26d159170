/* A folded network of leaky integrate-and-fire neurons as a program that only adds.

   The bytes of one image go in, whole logits come out. In between there are spikes, packed in bits, and sums of the
   weights that they select, in 16 bits: the exporter has proved that these suffice. The instructions that this file
   becomes add, subtract, compare, shift, select and look up; none multiplies. instructions.py reads them one by one.

   A network is a file of 32-bit words, which exporting.py writes: a header, layers (struct layer), and constants.
   Spikes lie in columns, `steps` of them for each place: bit c of column t is neuron c at time step t. */

#include <stdint.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

enum { MAGIC = 0x314E4E53, LANES = 16, MOST_STEPS = 32, MOST_UNITS = 6, CHUNK = 8 };
enum { COPY, PATCHES, TRANSPOSE, LINES, ROWS, TABLES, SELECT };

typedef int16_t shorts __attribute__((vector_size(32), may_alias)); /* the currents of 16 neurons */
typedef int32_t longs __attribute__((vector_size(64), may_alias));  /* the same where 16 bits are too few */
typedef uint8_t unit __attribute__((vector_size(32), may_alias));   /* weights of 8 bits to 32 neurons */
typedef int16_t shorts_pair __attribute__((vector_size(64), aligned(32), may_alias));
typedef uint8_t unit_pair __attribute__((vector_size(64), aligned(32), may_alias));
#ifdef __AVX512BW__
enum { TWO_AT_ONCE = 1 };
#else
enum { TWO_AT_ONCE = 0 };
#endif
#define FIRST_HALF(v) __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#define SECOND_HALF(v) __builtin_shufflevector(v, v, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31)
typedef uint16_t eight __attribute__((vector_size(16), aligned(2), may_alias));
typedef uint8_t sixteen __attribute__((vector_size(16), may_alias));
typedef uint64_t words64 __attribute__((vector_size(16), may_alias));
typedef uint64_t word64 __attribute__((may_alias, aligned(1)));
typedef uint16_t word16 __attribute__((may_alias));
typedef uint32_t word32 __attribute__((may_alias, aligned(1)));

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
    int32_t wide;                            /* whether currents take 32 bits */
    int32_t extra, more, extra_place, extra_step; /* currents from elsewhere */
    int32_t keep, keep_place, keep_step;          /* where currents are kept */
    int32_t spikes, spikes_place, spikes_step;    /* where spikes go */
    int32_t neuron, neuron_place;                 /* constants: struct neuron, one for all or one for each place */
    int32_t leak, forgets, soft, special;         /* bits of the leak; no membrane stays; reset by subtraction; any of what
                                                     the plain case leaves out */
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

/* The tables of every network: which bits of a byte are set, and how many. */
struct bits { uint16_t numbers[32], set[256][8]; uint8_t count[256]; };

/* Compilers turn sums of shifts back into one multiplication; through this they cannot see. */
INLINE unsigned opaque(unsigned x) { __asm__("" : "+r"(x)); return x; }
INLINE uint64_t opaque64(uint64_t x) { __asm__("" : "+r"(x)); return x; }

/* x times a small constant, by shifts and additions. */
INLINE unsigned times(unsigned x, const unsigned n)
{
    unsigned sum = n & 1 ? x : 0;
    UNROLL for (int i = 1; i < 4; i++) if (n >> i & 1) sum = opaque(sum + opaque(opaque(x) << i));
    return sum;
}

/* The highest bits of 16 bytes. */
INLINE unsigned top_bits_of(sixteen v)
{
#ifdef __AVX2__
    return (unsigned)_mm_movemask_epi8((__m128i)v);
#else
    unsigned sum = 0;
    UNROLL for (int i = 0; i < LANES; i++) sum |= (v[i] >> 7 & 1u) << i;
    return sum;
#endif
}

/* 16 lanes of 0 or -1, as bytes. */
INLINE sixteen narrow(shorts lanes)
{
#ifdef __AVX2__
    __m256i m = (__m256i)lanes;
    return (sixteen)_mm_packs_epi16(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
#else
    return __builtin_convertvector(lanes, sixteen);
#endif
}

INLINE unsigned bits_of(shorts lanes) { return top_bits_of(narrow(lanes)); }

/* The plain neuron: which of 16 potentials exceed the threshold, as bits, and the membranes after the reset to 0. */
INLINE unsigned fire_16(shorts *v, shorts u, int16_t above)
{
#ifdef __AVX512BW__
    const __mmask16 fires = _mm256_cmpgt_epi16_mask((__m256i)u, _mm256_set1_epi16(above));
    *v = (shorts)_mm256_maskz_mov_epi16(_knot_mask16(fires), (__m256i)u);
    return fires;
#else
    const shorts fires = u > above;
    *v = u & ~fires;
    return bits_of(fires);
#endif
}

/* The same; a bit for each lane that fires goes into its byte. */
INLINE sixteen fire_into_bytes(sixteen bytes, uint8_t bit, shorts *v, shorts u, int16_t above)
{
#ifdef __AVX512BW__
    const __mmask16 fires = (__mmask16)fire_16(v, u, above);
    return (sixteen)_mm_mask_add_epi8((__m128i)bytes, fires, (__m128i)bytes, _mm_set1_epi8((char)bit));
#else
    const shorts fires = u > above;
    *v = u & ~fires;
    return bytes + (narrow(fires) & bit);
#endif
}

/* The numbers of the set bits of a column, `row` being that of the first; returns where the list ends. */
INLINE uint16_t *list_spikes(uint16_t *list, const struct bits *bits, const uint8_t *column, int bytes, int row)
{
#ifdef __AVX512VBMI2__ /* 32 at once */
    __m512i numbers = _mm512_add_epi16(_mm512_set1_epi16((int16_t)row), _mm512_load_si512(bits->numbers));
    for (; bytes > 0; bytes -= 4, column += 4, numbers = _mm512_add_epi16(numbers, _mm512_set1_epi16(32))) {
        const uint32_t word = *(const word32 *)column & (bytes < 4 ? (1u << (bytes << 3)) - 1 : ~0u);
        _mm512_storeu_si512(list, _mm512_maskz_compress_epi16(word, numbers));
        list += __builtin_popcount(word);
    }
    return list;
#endif
    for (int i = 0; i < bytes; i++, row += 8) {
        *(eight *)list = *(const eight *)bits->set[column[i]] + (uint16_t)row;
        list += bits->count[column[i]];
    }
    return list;
}

/* The sum of the rows in a list, two at a time. A row is `units` of 32 bytes: the weight to lane j, plus 64, then the
   weight to lane j + 16, and so on in turn. Two rows add up in bytes, since no weight exceeds 63. In 16-bit lanes the
   whole of them is added, and the upper byte by itself; what it left in the whole is taken off at the end. */
INLINE void sum_rows(shorts *sums, const int units, const uint16_t *list, const uint16_t *end, const unit *rows)
{
    const int16_t biases = (int16_t)((end - list) << 6);
    const int pairs = TWO_AT_ONCE ? units / 2 : 0;
    shorts whole[MOST_UNITS], upper[MOST_UNITS];
    shorts_pair whole2[MOST_UNITS / 2], upper2[MOST_UNITS / 2];
    UNROLL for (int u = 0; u < units; u++) whole[u] = upper[u] = (shorts){0};
    UNROLL for (int u = 0; u < pairs; u++) whole2[u] = upper2[u] = (shorts_pair){0};
    for (; list < end; list += 2) {
        const unit *a = rows + times(list[0], (unsigned)units), *b = rows + times(list[1], (unsigned)units);
        UNROLL for (int u = 0; u < pairs; u++) {
            const shorts_pair both = (shorts_pair)(((const unit_pair *)a)[u] + ((const unit_pair *)b)[u]);
            whole2[u] += both;
            upper2[u] += both >> 8;
        }
        UNROLL for (int u = pairs + pairs; u < units; u++) {
            const shorts both = (shorts)(a[u] + b[u]);
            whole[u] += both;
            upper[u] += both >> 8;
        }
    }
    UNROLL for (int u = 0; u < pairs; u++) {
        whole[2 * u] = FIRST_HALF(whole2[u]), whole[2 * u + 1] = SECOND_HALF(whole2[u]);
        upper[2 * u] = FIRST_HALF(upper2[u]), upper[2 * u + 1] = SECOND_HALF(upper2[u]);
    }
    UNROLL for (int u = 0; u < units; u++) {
        sums[2 * u] = whole[u] - (upper[u] << 8) - biases;
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
        _Pragma("GCC unroll 3") for (const uint8_t *last = column + bytes; column < last; column++)
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
   above its threshold a neuron fires and is reset. */
#define DEFINE_FIRE(name, vector, scalar, log2_bytes, widened, narrowed)                                               \
    static __attribute__((noinline)) void name(const struct network *net, const struct layer *l, uint8_t *memory,      \
                     struct place at, int first, int registers, const shorts *sums, int sums_step)                                                 \
    {                                                                                                                  \
        const struct neuron *is = (const struct neuron *)(net->constants + at.neuron);                                 \
        const scalar above = (scalar)is->above, theta = (scalar)is->theta, bias = (scalar)is->bias,                    \
                     turned = (scalar)is->turned, driven = (scalar)is->driven;                                         \
        const int left = l->shift < 0 ? -l->shift : 0, right = l->shift > 0 ? l->shift : 0;                            \
        for (int r = 0, q = first; r < registers; r++, q += LANES) {                                                   \
            const uint8_t *sum = (const uint8_t *)(sums + r), *before = net->constants + l->before + q + q;            \
            const uint8_t *from = memory + at.extra + (q << log2_bytes), *more = from + l->more - l->extra;            \
            uint8_t *to = memory + at.keep + (q << log2_bytes), *spikes = memory + at.spikes + (q >> 3);               \
            vector v = {0};                                                                                            \
            for (int t = 0; t < net->is.steps; t++) {                                                                  \
                vector x = widened((*(const shorts *)sum + *(const shorts *)before));                                  \
                x = x << left >> right;                                                                                \
                if (l->extra) x += *(const vector *)from;                                                              \
                if (l->more) x += *(const vector *)more;                                                               \
                if (l->keep) *(vector *)to = x;                                                                        \
                if (q < l->fired) {                                                                                    \
                    const vector u = (v >> l->leak) + (x & driven) + bias, fires = (u ^ turned) > above;               \
                    v = l->soft ? u - (fires & theta) : u & ~fires;                                                    \
                    if (l->forgets) v = (vector){0};                                                                   \
                    *(word16 *)spikes = (word16)bits_of(narrowed(fires));                                              \
                }                                                                                                      \
                sum += sums_step, before += l->before_step, spikes += l->spikes_step;                                  \
                from += l->extra_step, more += l->extra_step, to += l->keep_step;                                      \
            }                                                                                                          \
        }                                                                                                              \
    }
#define AS_IT_IS(x) (x)
#define TO_LONGS(x) __builtin_convertvector(x, longs)
#define TO_SHORTS(x) __builtin_convertvector(x, shorts)
DEFINE_FIRE(fire, shorts, int16_t, 1, AS_IT_IS, AS_IT_IS)
DEFINE_FIRE(fire_wide, longs, int32_t, 2, TO_LONGS, TO_SHORTS)

/* The same for four steps, the plain neuron, and no shift to the right: no branch is left. */
INLINE void fire_plain(const struct network *net, const struct layer *l, uint8_t *memory, struct place at, int first,
                       int registers, const shorts *sums, const int sums_step, const int shifts, const int extra, const int keep)
{
    const int16_t above = (int16_t)((const struct neuron *)(net->constants + at.neuron))->above;
    const int left = -l->shift, leak = l->leak;
    const shorts *before = (const shorts *)(net->constants + l->before + first + first);
    const uint8_t *from = memory + at.extra + first + first;
    uint8_t *to = memory + at.keep + first + first, *spikes = memory + at.spikes + (first >> 3);
    for (int r = 0; r < registers; r++, from += sizeof(shorts), to += sizeof(shorts), spikes += sizeof(word16)) {
        shorts v = {0};
        uint8_t *out = spikes, *kept = to;
        const uint8_t *in = from;
        UNROLL for (int t = 0; t < 4; t++, in += l->extra_step, kept += l->keep_step, out += l->spikes_step) {
            shorts x = sums[r + sums_step * t] + before[r];
            if (shifts) x <<= left;
            if (extra) x += *(const shorts *)in;
            if (keep) *(shorts *)kept = x;
            *(word16 *)out = (word16)fire_16(&v, (v >> leak) + x, above);
        }
    }
}

INLINE void fire_place(const struct network *net, const struct layer *l, uint8_t *memory, struct place at, int first,
                       const shorts *sums, const int size, const int steps, const int shifts)
{
    const int left = (l->lanes - first) / LANES, registers = size < left ? size : left;
    if (l->special) (l->wide ? fire_wide : fire)(net, l, memory, at, first, registers, sums, steps == 1 ? 0 : size << 5);
    else {
#define PLAIN(extra, keep) fire_plain(net, l, memory, at, first, registers, sums, steps == 1 ? 0 : size, shifts, extra, keep)
        if (l->extra && l->keep) PLAIN(1, 1);
        else if (l->extra) PLAIN(1, 0);
        else if (l->keep) PLAIN(0, 1);
        else PLAIN(0, 0);
    }
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
                for (int t = 0, step = 0; t < l->in_steps; t++, step += l->in_step) {
                    int row = 0;
                    for (int i = 0; i < l->parts; i++, row += l->part_bytes << 3)
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
                if (l->in_steps == 1) fire_place(net, l, memory, place, first, sums, size, 1, kind == ROWS);
                else fire_place(net, l, memory, place, first, sums, size, 4, kind == ROWS);
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

/* The image in the middle of a black square, cut into patches: a column of pixels for each place. */
static void cut_patches(const struct network *net, const struct layer *l, uint8_t *memory, const uint8_t *image)
{
    const struct picture { int32_t channels, height, width, begin, side, area, patch, strip; } *is =
        (const struct picture *)(net->constants + l->sources);
    uint8_t *square = memory + l->keep, *to = square + is->begin, *column = memory + l->spikes;
    for (int c = 0; c < is->channels; c++, to += is->area) {
        uint8_t *row = to;
        for (int y = 0; y < is->height; y++, row += is->side, image += is->width)
            for (int x = 0; x < is->width; x++) row[x] = image[x];
    }
    for (int top = 0; top < is->area; top += is->strip)
        for (int left = 0; left < is->side; left += is->patch) {
            const uint8_t *plane = square + top + left;
            for (int c = 0; c < is->channels; c++, plane += is->area) {
                const uint8_t *row = plane;
                for (int y = 0; y < is->patch; y++, row += is->side, column += is->patch)
                    for (int x = 0; x < is->patch; x++) column[x] = row[x];
            }
        }
}

/* 8 x 8 bits, transposed. */
INLINE uint64_t transposed(uint64_t x)
{
    uint64_t t = (x ^ x >> 7) & 0x00AA00AA00AA00AAu;
    x ^= t ^ opaque64(t) << 7;
    t = (x ^ x >> 14) & 0x0000CCCC0000CCCCu;
    x ^= t ^ opaque64(t) << 14;
    t = (x ^ x >> 28) & 0x00000000F0F0F0F0u;
    return x ^ t ^ opaque64(t) << 28;
}

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

#define INTERLEAVE_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define INTERLEAVE_HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)

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
    const int leak = l->leak, step = l->in_step, special = l->special;
    const uint8_t *tables = net->tables + l->rows, *constants = net->constants + l->before;
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
            sixteen now[MOST_STEPS];
            UNROLL for (int t = 0; t < steps; t++) now[t] = (sixteen){0};
            uint8_t bit = 1;
            for (int c = 0; c < 8; c++, bit = (uint8_t)(bit + bit)) {
                shorts v = {0};
                const uint8_t *table = tables, *before = constants;
                UNROLL for (int t = 0, at = g; t < steps; t++, at += step, table += l->rows_step, before += l->before_step) {
                    const shorts *sums = (const shorts *)table;
                    const unsigned number = fired[at][c];
                    shorts u = (v >> leak) + *(const shorts *)before + sums[number & 255] + sums[256 + (number >> 8)];
                    if (!special) now[t] = fire_into_bytes(now[t], bit, &v, u, above);
                    else {
                        const shorts fires = u > above;
                        v = l->soft ? u - (fires & theta) : u & ~fires;
                        if (l->forgets) v = (shorts){0};
                        now[t] += narrow(fires) & bit;
                    }
                }
            }
            UNROLL for (int t = 0, at = g; t < steps; t++, at += step) out[at] = now[t];
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
    if (bytes != (uint32_t)is->bytes) return "it is cut short, or something was added to it";
    uint32_t sum = 0, sums = 0;
    for (const uint32_t *word = (const uint32_t *)(&is->checksum + 1); word < (const uint32_t *)(file + bytes); word++)
        sums += sum += *word;
    if ((sum ^ (sums << 1 | sums >> 31)) != (uint32_t)is->checksum) return "it is damaged: its checksum is another";
    net->is = *is;
    net->layers = (const struct layer *)(file + sizeof *is);
    net->constants = file + is->constants;
    return 0;
}

static void run_layer(const struct network *net, const struct layer *l, uint8_t *memory, const uint8_t *image)
{
#define CASE(kind, size) case size: map_##kind##_##size(net, l, memory); return;
    switch (l->kind) {
        case COPY: for (int i = 0; i < l->part_bytes; i++) memory[l->keep + i] = net->constants[l->sources + i]; return;
        case PATCHES: cut_patches(net, l, memory, image); return;
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
