/* Where there is no C library: what compilers call to move bytes. */

void *memset(void *to, int value, __SIZE_TYPE__ bytes)
{
    for (uint8_t *at = to, *end = at + bytes; at < end; at++) *at = (uint8_t)value;
    return to;
}

void *memcpy(void *to, const void *from, __SIZE_TYPE__ bytes)
{
    const uint8_t *source = from;
    for (uint8_t *at = to, *end = at + bytes; at < end; at++, source++) *at = *source;
    return to;
}
