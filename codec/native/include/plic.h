/* Pocketlic's native core: .plic files to symbols and pixels and back, the same bits on every machine.
 *
 *     plic_error error;
 *     plic_model *model;
 *     if (plic_model_open(weights, weights_size, NULL, &model, &error) != PLIC_OK) puts(error.message);
 *     plic_info info;
 *     plic_read_info(file, file_size, NULL, &info, &error);
 *     uint8_t *pixels = malloc((size_t)info.width * info.height * info.components);
 *     plic_decode(model, file, file_size, NULL, pixels, (size_t)info.width * info.components, &error);
 *     plic_model_close(model);
 *
 * codec/SPEC.md says what is computed. A model is immutable once open: any number of threads may use it at the same
 * time, and there is no other state. A call takes threads of its own, which end with it; functions that the caller gives
 * are called by the caller's thread only.
 *
 * Pointers called `limits`, `error` and `options` may be NULL. Every function that fails leaves a code and one line
 * of text in *error; what it was to write is then undefined. Nothing is read beyond the sizes given, whatever the
 * bytes claim, and no call takes more memory than its limit. */
#ifndef PLIC_H
#define PLIC_H

#define PLIC_VERSION "0.1.0" /* pyproject.toml's */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum plic_status {
    PLIC_OK = 0,
    PLIC_ERROR_ARGUMENT = 1, /* the caller's mistake */
    PLIC_ERROR_MODEL = 2,    /* not a sound model file */
    PLIC_ERROR_FORMAT = 3,   /* not a .plic file, or a damaged one */
    PLIC_ERROR_MISMATCH = 4, /* the file was made by another model */
    PLIC_ERROR_LIMIT = 5,    /* the limit on pixels or memory is exceeded */
    PLIC_ERROR_MEMORY = 6,   /* the system has no memory left */
    PLIC_ERROR_STOPPED = 7   /* a row sink or a row source asked to stop */
} plic_status;

typedef struct plic_error {
    plic_status status;
    char message[200];
} plic_error;

typedef struct plic_limits {
    uint64_t max_pixels; /* that a file may claim */
    uint64_t max_memory; /* that one call may take, in bytes, besides what the caller gives */
    uint32_t threads;    /* that one call may take; 0: as many as there are cores. Results do not depend on it */
} plic_limits;

#define PLIC_DEFAULT_MAX_PIXELS ((uint64_t)1 << 27)
#define PLIC_DEFAULT_MAX_MEMORY ((uint64_t)1 << 29)

/* ------------------------------------------------------------------------------------------------------- model */

typedef struct plic_model plic_model;

/* Runs a network in place of the core, on arrays as for plic_run. Non-zero declines: the core runs it. */
typedef int plic_runner(void *user, const char *name, uint32_t height, uint32_t width, const int8_t *const *inputs,
                        int8_t *const *outputs);

typedef struct plic_options {
    const char *kernels; /* NULL: the fastest for this machine; or a name out of plic_kernels */
    plic_runner *runner; /* NULL: none; what it computes decides whether pixels and files are exact */
    void *user;          /* for the runner; a model with one takes no threads */
    uint32_t tile;       /* 0: the runner takes any size; or it takes squares of that many pixels of the picture only */
} plic_options;

typedef struct plic_model_info {
    uint8_t id[32]; /* SHA-256 of the model file; the first 8 bytes stand in each .plic file */
    const char *profile;
    const char *kernels;
    uint32_t latent_channels, detail_channels, hyper_channels;
    uint64_t memory; /* that the model takes, in bytes */
} plic_model_info;

/* Checks and prepares a model file, which is not needed afterwards. */
plic_status plic_model_open(const uint8_t *data, size_t size, const plic_options *options, plic_model **model,
                            plic_error *error);
void plic_model_close(plic_model *model); /* NULL is fine */
void plic_model_describe(const plic_model *model, plic_model_info *info);

/* The name of the index-th set of kernels that this machine can run, fastest first, or NULL behind the last one,
 * which is always "portable". The results of all are equal. */
const char *plic_kernels(size_t index);

/* -------------------------------------------------------------------------------------------------------- files */

typedef struct plic_info {
    uint32_t version, width, height, components; /* components: 3 RGB, 1 grey */
    uint32_t quality_hundredths;
    uint8_t model_id[8];
    uint32_t hyper_height, hyper_width;   /* cells of z */
    uint32_t latent_height, latent_width; /* cells of y */
    uint32_t bands;                       /* sections of symbols */
    size_t payload_size;                  /* bytes of entropy-coded data in them */
    size_t icc_offset, icc_size, exif_offset, exif_size; /* where they stand in the file; size 0: absent */
} plic_info;

/* Checks the whole container, the checksum included, but decodes nothing. */
plic_status plic_read_info(const uint8_t *data, size_t size, const plic_limits *limits, plic_info *info,
                           plic_error *error);

/* What a file says about a picture, in the order [row][column][channel]: z, hyper_height x hyper_width x
 * hyper_channels; y and details, latent_height x latent_width x latent_channels or detail_channels. */
typedef struct plic_symbols {
    int8_t *z;
    int32_t *y, *details;
    size_t z_count, y_count, details_count; /* elements that the arrays hold */
} plic_symbols;

/* Arrays for the symbols of a file with this info, to be released with plic_free_symbols. */
plic_status plic_allocate_symbols(const plic_model *model, const plic_info *info, plic_symbols *symbols,
                                  plic_error *error);
void plic_free_symbols(plic_symbols *symbols); /* null pointers in it are fine */

/* The caller's arrays must hold as many elements as there are, or more. */
plic_status plic_decode_symbols(const plic_model *model, const uint8_t *data, size_t size, const plic_limits *limits,
                                const plic_symbols *symbols, plic_error *error);

/* Decodes to width * components bytes a row, `stride` bytes from row to row. */
plic_status plic_decode(const plic_model *model, const uint8_t *data, size_t size, const plic_limits *limits,
                        uint8_t *pixels, size_t stride, plic_error *error);

/* Receives `rows` whole rows from row `first` on, without gaps; the pixels live until it returns. Not 0 stops. */
typedef int plic_row_sink(void *user, uint32_t first, uint32_t rows, const uint8_t *pixels);

/* Decodes the rows first .. first + count - 1 and hands them on from top to bottom. Memory does not grow with the
 * height of the picture but for z (1/64 byte a pixel). The whole file is checked against its checksum; bands that the
 * rows do not need are not decoded. */
plic_status plic_decode_rows(const plic_model *model, const uint8_t *data, size_t size, const plic_limits *limits,
                             uint32_t first, uint32_t count, plic_row_sink *sink, void *user, plic_error *error);

typedef struct plic_hashes {
    uint8_t symbols[32]; /* SHA-256 of z as int8, then of each band y and details as little-endian int16 */
    uint8_t pixels[32];  /* SHA-256 of the rows, top to bottom, without padding */
    uint64_t memory;     /* the most that decoding took, in bytes */
} plic_hashes;

plic_status plic_hash(const plic_model *model, const uint8_t *data, size_t size, const plic_limits *limits,
                      plic_hashes *hashes, plic_error *error);

/* The .plic file of symbols as plic_decode_symbols gives them, with exactly their counts. info: width, height,
 * components and quality_hundredths count. On PLIC_OK, *file (of *file_size bytes, which the limit on memory does not
 * count) is to be released with plic_release. */
plic_status plic_encode_symbols(const plic_model *model, const plic_info *info, const plic_limits *limits,
                                const plic_symbols *symbols, uint8_t **file, size_t *file_size, plic_error *error);
void plic_release(uint8_t *file); /* NULL is fine */

/* Gives `rows` whole rows from row `first` on, width * components bytes each. Not 0 stops. */
typedef int plic_row_source(void *user, uint32_t first, uint32_t rows, uint8_t *pixels);

/* Encodes the picture that info describes, as for plic_encode_symbols, to the reference encoder's bytes. Every row is
 * asked for once, from top to bottom. Takes about 3.5 bytes a pixel, and what the rows of a tile need. */
plic_status plic_encode(const plic_model *model, const plic_info *info, const plic_limits *limits,
                        plic_row_source *source, void *user, uint8_t **file, size_t *file_size, plic_error *error);

/* ------------------------------------------------------------------------------- one network, for tests and tools */

typedef struct plic_tensor {
    const char *name;
    uint32_t height, width, channels;
} plic_tensor;

/* Describes a network of the model for inputs of height x width cells: its inputs, then its outputs. `tensors` has
 * room for *count of them; *count becomes the number there is. */
plic_status plic_network(const plic_model *model, const char *name, uint32_t height, uint32_t width,
                         plic_tensor *tensors, uint32_t *count, uint32_t *inputs, plic_error *error);

/* Runs a network on int8 [height][width][channels] arrays. tile: cells of an input that are computed at a time in
 * each direction, 0 for all; the results do not depend on it. */
plic_status plic_run(const plic_model *model, const char *name, uint32_t height, uint32_t width, uint32_t tile,
                     const int8_t *const *inputs, int8_t *const *outputs, const plic_limits *limits,
                     plic_error *error);

#ifdef __cplusplus
}
#endif
#endif
