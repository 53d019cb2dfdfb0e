// The command-line tool `plic`: everything the core does, without Python. See `usage`.
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "plic.h"

namespace {

const char kUsage[] =
    "usage: plic info FILE\n"
    "       plic decode MODEL FILE OUT     to PPM, or PGM where the picture is grey; OUT - is standard output\n"
    "       plic encode MODEL PICTURE QUALITY OUT   from PPM or PGM without comments; quality 0 to 100\n"
    "       plic hash MODEL FILE...        SHA-256 of symbols and of pixels, peak memory, name\n"
    "       plic recode MODEL FILE OUT     decodes the symbols and encodes them again\n"
    "       plic bench MODEL FILE RUNS     milliseconds of each run: symbols, everything\n"
    "       plic bench-encode MODEL PICTURE QUALITY RUNS   milliseconds of each run\n"
    "       plic kernels                   those that this machine can run, fastest first\n"
    "options before the command:\n"
    "       --max-pixels N    --max-memory BYTES    --kernels NAME\n"
    "exit code: 0, or 2 with one line on standard error; `hash` goes on with the next file and prints the error\n";

struct Bytes {
    uint8_t* data = nullptr;
    size_t size = 0;
    ~Bytes() { std::free(data); }
};

bool read_file(const char* path, Bytes& to) {
    std::FILE* f = std::fopen(path, "rb");
    if (f == nullptr) return false;
    size_t capacity = 0;
    for (;;) {
        if (to.size == capacity) {
            capacity = capacity > 0 ? 2 * capacity : size_t{1} << 16;
            auto* grown = static_cast<uint8_t*>(std::realloc(to.data, capacity));
            if (grown == nullptr) break;
            to.data = grown;
        }
        const size_t n = std::fread(to.data + to.size, 1, capacity - to.size, f);
        if (n == 0) break;
        to.size += n;
    }
    const bool sound = std::ferror(f) == 0 && std::feof(f) != 0;
    std::fclose(f);
    return sound;
}

bool write_file(const char* path, const uint8_t* data, size_t size) {
    std::FILE* out = std::fopen(path, "wb");
    const bool written = out != nullptr && std::fwrite(data, 1, size, out) == size;
    return out != nullptr && std::fclose(out) == 0 && written;
}

int complain(const char* what, const char* message) {
    std::fprintf(stderr, "plic: %s: %s\n", what, message);
    return 2;
}

void print_hex(const uint8_t* bytes, size_t n) {
    for (size_t i = 0; i < n; ++i) std::printf("%02x", bytes[i]);
}

struct Job {
    plic_limits limits = {PLIC_DEFAULT_MAX_PIXELS, PLIC_DEFAULT_MAX_MEMORY};
    plic_options options = {};
    plic_model* model = nullptr;
    plic_error error = {PLIC_OK, ""};
    ~Job() { plic_model_close(model); }
};

int info(Job& job, const char* path) {
    Bytes file;
    plic_info i;
    if (!read_file(path, file)) return complain(path, "cannot read it");
    if (plic_read_info(file.data, file.size, &job.limits, &i, &job.error) != PLIC_OK)
        return complain(path, job.error.message);
    std::printf("version     %u\nwidth       %u\nheight      %u\ncomponents  %u\nquality     %u.%02u\nmodel       ",
                i.version, i.width, i.height, i.components, i.quality_hundredths / 100, i.quality_hundredths % 100);
    print_hex(i.model_id, sizeof i.model_id);
    std::printf("\nbytes       %zu\npayload     %zu in %u bands\nICC bytes   %zu\nEXIF bytes  %zu\n", file.size,
                i.payload_size, i.bands, i.icc_size, i.exif_size);
    return 0;
}

int write_rows(void* user, uint32_t, uint32_t rows, const uint8_t* pixels) {
    struct Out {
        std::FILE* file;
        size_t row_bytes;
    };
    const auto* out = static_cast<const Out*>(user);
    return std::fwrite(pixels, out->row_bytes, rows, out->file) == rows ? 0 : 1;
}

int decode(Job& job, const char* path, const char* target) {
    Bytes file;
    plic_info i;
    if (!read_file(path, file)) return complain(path, "cannot read it");
    if (plic_read_info(file.data, file.size, &job.limits, &i, &job.error) != PLIC_OK)
        return complain(path, job.error.message);
    const bool standard = std::strcmp(target, "-") == 0;
    struct {
        std::FILE* file;
        size_t row_bytes;
    } out = {standard ? stdout : std::fopen(target, "wb"), size_t{i.width} * i.components};
    if (out.file == nullptr) return complain(target, "cannot write it");
    std::fprintf(out.file, "P%d\n%u %u\n255\n", i.components == 3 ? 6 : 5, i.width, i.height);
    const plic_status status = plic_decode_rows(job.model, file.data, file.size, &job.limits, 0, i.height, write_rows,
                                                &out, &job.error);
    const bool written = std::fflush(out.file) == 0;
    if (!standard) {
        std::fclose(out.file);
        if (status != PLIC_OK || !written) std::remove(target);
    }
    if (status == PLIC_ERROR_STOPPED || !written) return complain(target, "cannot write it");
    return status == PLIC_OK ? 0 : complain(path, job.error.message);
}

int hash(Job& job, const char* path) {
    Bytes file;
    plic_hashes h;
    if (!read_file(path, file)) return complain(path, "cannot read it");
    if (plic_hash(job.model, file.data, file.size, &job.limits, &h, &job.error) != PLIC_OK) {
        std::printf("error %d: %s  %s\n", static_cast<int>(job.error.status), job.error.message, path);
        return 2;
    }
    print_hex(h.symbols, sizeof h.symbols);
    std::printf(" ");
    print_hex(h.pixels, sizeof h.pixels);
    std::printf(" %llu %s\n", static_cast<unsigned long long>(h.memory), path);
    return 0;
}

struct Symbols {
    plic_info info;
    plic_symbols arrays = {};
    ~Symbols() { plic_free_symbols(&arrays); }
};

plic_status symbols(Job& job, const Bytes& file, Symbols& to) {
    plic_status status = plic_read_info(file.data, file.size, &job.limits, &to.info, &job.error);
    if (status == PLIC_OK) status = plic_allocate_symbols(job.model, &to.info, &to.arrays, &job.error);
    if (status != PLIC_OK) return status;
    return plic_decode_symbols(job.model, file.data, file.size, &job.limits, &to.arrays, &job.error);
}

int recode(Job& job, const char* path, const char* target) {
    Bytes file;
    Symbols s;
    uint8_t* made = nullptr;
    size_t size = 0;
    if (!read_file(path, file)) return complain(path, "cannot read it");
    if (symbols(job, file, s) != PLIC_OK ||
        plic_encode_symbols(job.model, &s.info, &job.limits, &s.arrays, &made, &size, &job.error) != PLIC_OK)
        return complain(path, job.error.message);
    const bool written = write_file(target, made, size);
    plic_release(made);
    return written ? 0 : complain(target, "cannot write it");
}

struct Picture {
    std::FILE* file;
    size_t row_bytes;
    ~Picture() {
        if (file != nullptr) std::fclose(file);
    }
};

int read_rows(void* user, uint32_t, uint32_t rows, uint8_t* pixels) {
    const auto* in = static_cast<const Picture*>(user);
    return std::fread(pixels, in->row_bytes, rows, in->file) == rows ? 0 : 1;
}

double milliseconds() {
    std::timespec t;
    std::timespec_get(&t, TIME_UTC);
    return 1e3 * static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_nsec);
}

// Writes the file to `target`; or, without one, prints the times of some runs.
int encode(Job& job, const char* path, const char* quality, const char* target, int runs) {
    Picture in = {std::fopen(path, "rb"), 0};
    if (in.file == nullptr) return complain(path, "cannot read it");
    char kind = 0;
    plic_info info = {};
    if (std::fscanf(in.file, "P%c %u %u 255", &kind, &info.width, &info.height) != 3 ||
        (kind != '5' && kind != '6') || std::isspace(std::fgetc(in.file)) == 0)
        return complain(path, "not a PPM or PGM of 8 bits");
    info.components = kind == '6' ? 3 : 1;
    char* end = nullptr;
    const double wanted = std::strtod(quality, &end);
    if (end == quality || *end != 0) return complain(quality, "not a number");
    // What does not even fit is out of range too, which the core says.
    info.quality_hundredths = wanted >= 0 && wanted <= 100 ? static_cast<uint32_t>(100 * wanted + 0.5) : UINT32_MAX;
    in.row_bytes = size_t{info.width} * info.components;
    const long begin = std::ftell(in.file);
    bool written = true;
    for (int r = 0; r < runs && written; ++r) {
        uint8_t* made = nullptr;
        size_t size = 0;
        if (r > 0) std::fseek(in.file, begin, SEEK_SET);
        const double start = milliseconds();
        const plic_status status = plic_encode(job.model, &info, &job.limits, read_rows, &in, &made, &size, &job.error);
        if (status != PLIC_OK)
            return complain(path, status == PLIC_ERROR_STOPPED ? "the picture is cut off" : job.error.message);
        if (target == nullptr) std::printf("%.3f\n", milliseconds() - start);
        else written = write_file(target, made, size);
        plic_release(made);
    }
    return written ? 0 : complain(target, "cannot write it");
}

int bench(Job& job, const char* path, int runs) {
    Bytes file, pixels;
    if (!read_file(path, file)) return complain(path, "cannot read it");
    for (int r = 0; r < runs; ++r) {
        Symbols s;
        const double start = milliseconds();
        if (symbols(job, file, s) != PLIC_OK) return complain(path, job.error.message);
        const double middle = milliseconds();
        const size_t row = size_t{s.info.width} * s.info.components;
        if (pixels.data == nullptr) pixels.data = static_cast<uint8_t*>(std::malloc(row * s.info.height));
        if (pixels.data == nullptr) return complain(path, "out of memory");
        const double again = milliseconds();
        if (plic_decode(job.model, file.data, file.size, &job.limits, pixels.data, row, &job.error) != PLIC_OK)
            return complain(path, job.error.message);
        std::printf("%.3f %.3f\n", middle - start, milliseconds() - again);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    Job job;
    int a = 1;
    for (; a + 1 < argc && std::strncmp(argv[a], "--", 2) == 0; a += 2) {
        if (std::strcmp(argv[a], "--max-pixels") == 0) job.limits.max_pixels = std::strtoull(argv[a + 1], nullptr, 10);
        else if (std::strcmp(argv[a], "--max-memory") == 0)
            job.limits.max_memory = std::strtoull(argv[a + 1], nullptr, 10);
        else if (std::strcmp(argv[a], "--kernels") == 0) job.options.kernels = argv[a + 1];
        else return complain(argv[a], "unknown option");
    }
    const char* command = a < argc ? argv[a] : "";
    const int rest = argc - a - 1;
    char** arguments = argv + a + 1;
    if (std::strcmp(command, "kernels") == 0) {
        for (size_t i = 0; plic_kernels(i) != nullptr; ++i) std::printf("%s\n", plic_kernels(i));
        return 0;
    }
    if (std::strcmp(command, "info") == 0 && rest == 1) return info(job, arguments[0]);
    const bool three = std::strcmp(command, "decode") == 0 || std::strcmp(command, "recode") == 0 ||
                       std::strcmp(command, "bench") == 0;
    const bool encodes = std::strcmp(command, "encode") == 0, times = std::strcmp(command, "bench-encode") == 0;
    if (!(three && rest == 3) && !((encodes || times) && rest == 4) && !(std::strcmp(command, "hash") == 0 && rest >= 2)) {
        std::fputs(kUsage, stderr);
        return 2;
    }
    Bytes weights;
    if (!read_file(arguments[0], weights)) return complain(arguments[0], "cannot read it");
    if (plic_model_open(weights.data, weights.size, &job.options, &job.model, &job.error) != PLIC_OK)
        return complain(arguments[0], job.error.message);
    if (std::strcmp(command, "decode") == 0) return decode(job, arguments[1], arguments[2]);
    if (encodes) return encode(job, arguments[1], arguments[2], arguments[3], 1);
    if (times) return encode(job, arguments[1], arguments[2], nullptr, std::atoi(arguments[3]));
    if (std::strcmp(command, "recode") == 0) return recode(job, arguments[1], arguments[2]);
    if (std::strcmp(command, "bench") == 0) return bench(job, arguments[1], std::atoi(arguments[2]));
    int code = 0;
    for (int i = 1; i < rest; ++i)
        if (hash(job, arguments[i]) != 0) code = 2;
    return code;
}
