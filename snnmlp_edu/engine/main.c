/* Classifies images: classify [-n NETWORK] [IMAGE...]

   An image is a file, or standard input for - or where none is named: a binary PGM or PPM, or raw bytes, all of the
   first channel before those of the next; raw images may follow one another. A line is printed for each: its name, the
   number of its class, the name of the class, and the logits, with tabs between them. The network is the file
   network.bin beside the program, or NETWORK. -h says how to use it. Any error is one line, and the exit status is 1. */

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.c"
#include "class_names.h"

struct file { const char *name; uint8_t *bytes; size_t size; };

static __attribute__((noreturn, format(printf, 2, 3))) void fail(const char *name, const char *what, ...)
{
    va_list values;
    va_start(values, what);
    fflush(stdout);
    fprintf(stderr, "error: %s: ", name);
    vfprintf(stderr, what, values);
    fputc('\n', stderr);
    exit(1);
}

/* So many bytes, all 0, as the engine wants them. */
static uint8_t *aligned(size_t size)
{
    const size_t whole = ((size ? size : 1) + 63) & ~(size_t)63;
    uint8_t *memory = aligned_alloc(64, whole);
    if (!memory) fail("memory", "there is too little for %zu bytes more", whole);
    return memset(memory, 0, whole);
}

static struct file read_file(const char *name)
{
    const int standard = strcmp(name, "-") == 0;
    struct file all = {standard ? "standard input" : name, aligned(4096), 0};
    FILE *stream = standard ? stdin : fopen(name, "rb");
    if (!stream) fail(name, "cannot be read: %s", strerror(errno));
    for (size_t room = 4096, got; (got = fread(all.bytes + all.size, 1, room - all.size, stream)) > 0;) {
        all.size += got;
        if (all.size < room) continue;
        uint8_t *larger = aligned(room += room);
        memcpy(larger, all.bytes, all.size);
        free(all.bytes);
        all.bytes = larger;
    }
    if (ferror(stream)) fail(all.name, "cannot be read: %s", strerror(errno));
    if (!standard) fclose(stream);
    return all;
}

/* The next whole number of a picture's header, after spaces and comments; -1 where there is none. */
static int read_number(const uint8_t **at, const uint8_t *end)
{
    while (*at < end && (isspace(**at) || **at == '#'))
        if (*(*at)++ == '#')
            while (*at < end && **at != '\n') ++*at;
    int value = -1;
    for (; *at < end && isdigit(**at) && value < 1000000; ++*at) value = (value < 0 ? 0 : value * 10) + (**at - '0');
    return value;
}

/* The pixels of a PGM or PPM, in the order that the network takes. */
static uint8_t *read_picture(const struct header *is, struct file file)
{
    const uint8_t *at = file.bytes + 2, *end = file.bytes + file.size;
    const int channels = file.bytes[1] == '6' ? 3 : 1;
    const int width = read_number(&at, end), height = read_number(&at, end), white = read_number(&at, end);
    if (width < 1 || height < 1 || white < 1) fail(file.name, "its header is damaged or cut off");
    if (white != 255) fail(file.name, "its white is %d; save it with 8 bits, white 255", white);
    if (channels != is->channels || height != is->height || width != is->width)
        fail(file.name, "it has %d channel(s) of %d x %d pixels; this network takes %d of %d x %d", channels, height,
             width, is->channels, is->height, is->width);
    if (end - at != 1 + is->image)
        fail(file.name, "%td bytes come after its header, and its size says %d", end - at - 1, is->image);
    uint8_t *pixels = aligned((size_t)is->image), *to = pixels;
    for (int channel = 0; channel < channels; channel++)
        for (const uint8_t *from = at + 1 + channel; from < end; from += channels) *to++ = *from;
    return pixels;
}

static void classify(const struct network *net, const char *name, const uint8_t *pixels, int32_t *logits, uint8_t *memory)
{
    int best = 0;
    snn_run(net, pixels, 1, logits, memory);
    for (int k = 1; k < net->is.classes; k++)
        if (logits[k] > logits[best]) best = k;
    printf("%s\t%d\t", name, best);
    if (net->is.classes == CLASSES) printf("%s", class_names[best]);
    else printf("class %d", best);
    for (int k = 0; k < net->is.classes; k++) printf("%c%d", k ? ' ' : '\t', (int)logits[k]);
    putchar('\n');
}

int main(int count, char **words)
{
    const char *slash = strrchr(words[0], '/');
    const size_t folder = slash ? (size_t)(slash - words[0]) + 1 : 0;
    char *network = (char *)aligned(folder + sizeof "network.bin");
    memcpy(network, words[0], folder);
    strcpy(network + folder, "network.bin");
    char *standard[] = {"-", 0}, **images = words + 1;
    if (count > 1 && (strcmp(words[1], "-h") == 0 || strcmp(words[1], "--help") == 0))
        return puts("classify [-n NETWORK] [IMAGE...]: binary PGM or PPM files, or raw bytes; - is standard input") < 0;
    if (count > 1 && strcmp(words[1], "-n") == 0) {
        if (count == 2) fail("-n", "the name of a network's file is missing");
        network = words[2], images += 2;
    }
    if (!*images) images = standard;

    const struct file file = read_file(network);
    struct network net;
    const char *wrong = file.size > INT32_MAX ? "it is too large" : snn_open(&net, file.bytes, (uint32_t)file.size);
    if (wrong) fail(file.name, "%s", wrong);
    snn_prepare(&net, aligned((size_t)net.is.tables));
    uint8_t *memory = aligned((size_t)net.is.memory);
    int32_t *logits = (int32_t *)aligned(sizeof *logits * (size_t)net.is.classes);
    const size_t size = (size_t)net.is.image;

    for (; *images; images++) {
        struct file image = read_file(*images);
        if (image.size > 2 && image.bytes[0] == 'P' && (image.bytes[1] == '5' || image.bytes[1] == '6') && isspace(image.bytes[2])) {
            uint8_t *pixels = read_picture(&net.is, image);
            classify(&net, image.name, pixels, logits, memory);
            free(pixels);
        } else {
            if (!image.size || image.size % size)
                fail(image.name, "it has %zu bytes; give a binary PGM or PPM, or %d channel(s) of %d x %d raw bytes",
                     image.size, (int)net.is.channels, (int)net.is.height, (int)net.is.width);
            for (size_t at = 0; at < image.size; at += size) classify(&net, image.name, image.bytes + at, logits, memory);
        }
        free(image.bytes);
    }
    if (fflush(stdout) || ferror(stdout)) fail("standard output", "cannot be written: %s", strerror(errno));
    return 0;
}
