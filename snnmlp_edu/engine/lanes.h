/* Vectors of 16 lanes, and what processors do with them in different ways. Without the instructions named here, the
   compiler makes the same of plain C. */

#include <stdint.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif
#ifdef __wasm_simd128__
#include <wasm_simd128.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#ifdef __clang__
#define UNROLL_3 /* it would divide by 3 */
#else
#define UNROLL_3 _Pragma("GCC unroll 3")
#endif

enum { LOG2_LANES = 4, LANES = 1 << LOG2_LANES };
#if defined __SSE2__ || defined __ARM_NEON || defined __wasm_simd128__
enum { VECTORS = 1 };
#else
enum { VECTORS = 0 }; /* what takes an instruction for each lane is written out once, not for every case */
#endif

typedef int16_t shorts __attribute__((vector_size(32), may_alias)); /* the currents of 16 neurons */
typedef int32_t longs __attribute__((vector_size(64), may_alias));  /* the same where 16 bits are too few */
typedef uint8_t unit __attribute__((vector_size(32), may_alias));   /* weights of 8 bits to 32 neurons */
typedef uint16_t words __attribute__((vector_size(32), may_alias));  /* sums that may run over, and come back */
typedef uint16_t words_pair __attribute__((vector_size(64), aligned(32), may_alias));
typedef int16_t shorts_pair __attribute__((vector_size(64), aligned(32), may_alias));
typedef uint8_t unit_pair __attribute__((vector_size(64), aligned(32), may_alias));
#ifdef __AVX512BW__
enum { TWO_AT_ONCE = 1 };
#else
enum { TWO_AT_ONCE = 0 };
#endif
#define FIRST_HALF(v) __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#define SECOND_HALF(v) __builtin_shufflevector(v, v, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31)
#define FIRST_EIGHT(v) __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7)
#define SECOND_EIGHT(v) __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)
typedef uint16_t eight __attribute__((vector_size(16), aligned(2), may_alias));
typedef uint8_t sixteen __attribute__((vector_size(16), may_alias));
typedef uint64_t words64 __attribute__((vector_size(16), may_alias));
typedef uint64_t word64 __attribute__((may_alias, aligned(1)));
typedef uint16_t word16 __attribute__((may_alias));
typedef uint32_t word32 __attribute__((may_alias, aligned(1)));

/* Compilers turn sums of shifts back into one multiplication; through this they cannot see. */
INLINE unsigned opaque(unsigned x) { __asm__("" : "+r"(x)); return x; }
INLINE int further(int at, int step) { return (int)opaque((unsigned)(at + step)); }
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
#elif defined __wasm_simd128__
    return wasm_i8x16_bitmask((v128_t)v);
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
#elif defined __wasm_simd128__
    return (sixteen)wasm_i8x16_narrow_i16x8((v128_t)FIRST_EIGHT(lanes), (v128_t)SECOND_EIGHT(lanes));
#else
    return __builtin_convertvector(lanes, sixteen);
#endif
}

INLINE unsigned bits_of(shorts lanes) { return top_bits_of(narrow(lanes)); }

/* The plain neuron: which of 16 potentials exceed the threshold, as bits, and the membranes after the reset to 0. */
INLINE unsigned fire_and_reset(shorts *v, shorts u, int16_t above)
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
    const __mmask16 fires = (__mmask16)fire_and_reset(v, u, above);
    return (sixteen)_mm_mask_add_epi8((__m128i)bytes, fires, (__m128i)bytes, _mm_set1_epi8((char)bit));
#else
    const shorts fires = u > above;
    *v = u & ~fires;
    return bytes + (narrow(fires) & bit);
#endif
}

#define INTERLEAVE_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define INTERLEAVE_HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)


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

/* The tables of every network: which bits of a byte are set, and how many. */
struct bits { uint16_t numbers[32], set[256][8]; uint8_t count[256]; };

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
