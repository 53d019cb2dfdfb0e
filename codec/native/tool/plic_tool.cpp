// The command-line tool `plic`: everything the core does, without Python. See `usage`.
#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>

#ifndef _WIN32
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "plic.h"

namespace fs = std::filesystem;

namespace {

const char kUsage[] =
    "usage: plic info FILE\n"
    "       plic decode MODEL FILE OUT     to PPM, or PGM where the picture is grey\n"
    "       plic encode MODEL PICTURE QUALITY OUT   from PPM or PGM; quality 0 to 100\n"
    "       plic hash MODEL FILE...        SHA-256 of symbols and of pixels, peak memory, name\n"
    "       plic recode MODEL FILE OUT     decodes the symbols and encodes them again\n"
    "       plic bench MODEL FILE RUNS     milliseconds of each run: symbols, everything\n"
    "       plic bench-encode MODEL PICTURE QUALITY RUNS   milliseconds of each run\n"
    "       plic kernels                   those that this machine can run, fastest first\n"
    "       plic --version\n"
    "options before the command:\n"
    "       --max-pixels N    --max-memory BYTES    --threads N    --kernels NAME\n"
    "FILE and PICTURE - are standard input, OUT - is standard output. OUT is replaced when the whole result is there.\n"
    "exit code: 0, or 2 with one line on standard error; `hash` goes on with the next file and prints the error\n";

// A name, or what else was given, on one line: control characters are escaped.
std::string printable(const char* text) {
    std::string line;
    for (; *text != 0; ++text) {
        const auto byte = static_cast<unsigned char>(*text);
        char escaped[5];
        std::snprintf(escaped, sizeof escaped, "\\x%02x", unsigned{byte});
        line += byte < 0x20 || byte == 0x7f ? escaped : std::string(1, *text);
    }
    return line;
}

int complain(const char* what, const char* message) {
    std::fprintf(stderr, "plic: %s: %s\n", printable(what).c_str(), printable(message).c_str());
    return 2;
}

// Says what the system said last about this file.
int complain_of_system(const char* path, const char* what) {
    const char* reason = std::strerror(errno);
    std::fprintf(stderr, "plic: %s: %s: %s\n", printable(path).c_str(), what, reason);
    return 2;
}

bool is_standard(const char* path) { return std::strcmp(path, "-") == 0; }

struct Bytes {
    uint8_t* data = nullptr;
    size_t size = 0;
    ~Bytes() { std::free(data); }
};

// A file to read, or standard input; `file` is null when it cannot be opened.
struct Input {
    std::FILE* file;
    explicit Input(const char* path) : file(is_standard(path) ? stdin : std::fopen(path, "rb")) {}
    ~Input() {
        if (file != nullptr && file != stdin) std::fclose(file);
    }
};

// On failure, errno says why.
bool read_file(const char* path, Bytes& to) {
    const Input in(path);
    if (in.file == nullptr) return false;
    size_t capacity = 0;
    for (;;) {
        if (to.size == capacity) {
            capacity = capacity > 0 ? 2 * capacity : size_t{1} << 16;
            auto* grown = static_cast<uint8_t*>(std::realloc(to.data, capacity));
            if (grown == nullptr) return false;
            to.data = grown;
        }
        const size_t n = std::fread(to.data + to.size, 1, capacity - to.size, in.file);
        if (n == 0) break;
        to.size += n;
    }
    return std::ferror(in.file) == 0;
}

// ---------------------------------------------------------------------------------------------- what is written

// The temporary file of this run, for signals that end it.
const char* volatile unfinished = nullptr;
#ifdef SIGHUP
constexpr int kEndingSignals[] = {SIGINT, SIGTERM, SIGHUP};
#else
constexpr int kEndingSignals[] = {SIGINT, SIGTERM};
#endif

void remove_unfinished(int signal) {
    const char* path = unfinished;
    if (path != nullptr) std::remove(path);
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

void prepare_signals() {
    for (const int signal : kEndingSignals)
        if (std::signal(signal, remove_unfinished) == SIG_IGN) std::signal(signal, SIG_IGN);  // as under nohup
#ifdef SIGXFSZ
    std::signal(SIGXFSZ, SIG_IGN);  // writing then fails, which is told
#endif
}

// A descriptor of this process, such as what /dev/stdout leads to, looks like a symbolic link to a file and is none.
bool is_descriptor(const fs::path& path) {
    return path.string().rfind("/proc/", 0) == 0 || path.string().rfind("/dev/fd/", 0) == 0;
}

// The file that a name leads to: symbolic links are followed, also to a file that is not there yet.
fs::path followed(fs::path path) {
    std::error_code none;
    for (int i = 0; i < 40 && !is_descriptor(path); ++i) {
        const fs::path next = fs::read_symlink(path, none);
        if (none) break;
        path = path.parent_path() / next;
    }
    return path;
}

// A file that appears whole or not at all: bytes go to a temporary file beside it, which takes its name at the end.
// Devices, pipes and standard output are written to directly.
class Output {
public:
    std::FILE* file = nullptr;

    // On failure, as in `finish`, errno says why.
    bool open(const char* path) {
        if (is_standard(path)) {
            file = stdout;
            return true;
        }
        std::error_code none;
        target_ = followed(path);
        const fs::file_status status = fs::status(target_, none);
        if (status.type() == fs::file_type::none) {
            errno = none.value();
            return false;
        }
        if (is_descriptor(target_) || (fs::exists(status) && !fs::is_regular_file(status))) {
            file = std::fopen(path, "wb");
            return file != nullptr;
        }
        if (fs::exists(status)) {
            // What may not be written may not be replaced either.
            std::FILE* old = std::fopen(path, "r+b");
            if (old == nullptr) return false;
            std::fclose(old);
        }
        std::random_device random;
        temporary_ = (target_.parent_path() / (".plic-" + std::to_string(random()) + ".tmp")).string();
        file = std::fopen(temporary_.c_str(), "wbx");
        if (file == nullptr) {
            temporary_.clear();
            return false;
        }
        unfinished = temporary_.c_str();
        if (fs::exists(status)) {  // owner and mode stay, where they can be set
#ifndef _WIN32
            struct stat old;
            if (::stat(target_.c_str(), &old) == 0 && ::chown(temporary_.c_str(), old.st_uid, old.st_gid) != 0)
                errno = 0;  // only root can
#endif
            fs::permissions(temporary_, status.permissions(), none);
        }
        return true;
    }

    bool finish() {
        bool sound = std::fflush(file) == 0;
        const int reason = sound ? 0 : errno;
        if (file != stdout && std::fclose(file) != 0) sound = false;
        if (reason != 0) errno = reason;
        file = nullptr;
        if (!sound || temporary_.empty()) return sound;
        std::error_code failed;
        fs::rename(temporary_, target_, failed);
        if (failed) {
            errno = failed.value();
            return false;
        }
        unfinished = nullptr;
        temporary_.clear();
        return true;
    }

    ~Output() {
        if (file != nullptr && file != stdout) std::fclose(file);
        if (temporary_.empty()) return;
        std::remove(temporary_.c_str());
        unfinished = nullptr;
    }

private:
    fs::path target_;
    std::string temporary_;
};

int write_file(const char* path, const uint8_t* data, size_t size) {
    Output out;
    const bool written = out.open(path) && std::fwrite(data, 1, size, out.file) == size && out.finish();
    return written ? 0 : complain_of_system(path, "cannot write it");
}

// An output that is one of the inputs would be lost, whatever it is called.
bool same_file(const char* a, const char* b) {
    std::error_code none;
    return !is_standard(a) && !is_standard(b) && fs::is_regular_file(a, none) && fs::equivalent(a, b, none);
}

bool ends_in(const char* path, const char* suffix) {
    const size_t n = std::strlen(path), m = std::strlen(suffix);
    if (n < m) return false;
    for (size_t i = 0; i < m; ++i)
        if (std::tolower(static_cast<unsigned char>(path[n - m + i])) != suffix[i]) return false;
    return true;
}

const char* const kPictureSuffixes[] = {".ppm", ".pgm",  ".pnm",  ".pbm",  ".png",  ".jpg", ".jpeg", ".tif", ".tiff",
                                        ".bmp", ".webp", ".avif", ".heic", ".heif", ".jxl", ".jp2",  ".gif", ".tga"};

bool is_picture_name(const char* path) {
    for (const char* suffix : kPictureSuffixes)
        if (ends_in(path, suffix)) return true;
    return false;
}

// --------------------------------------------------------------------------------------------------- arguments

// A whole number, of digits alone, up to a greatest one.
bool parse_number(const char* text, uint64_t most, uint64_t& number) {
    number = 0;
    for (const char* c = text; *c != 0; ++c) {
        if (*c < '0' || *c > '9') return false;
        const uint64_t digit = static_cast<uint64_t>(*c - '0');
        if (number > (most - digit) / 10) return false;
        number = 10 * number + digit;
    }
    return *text != 0;
}

void print_hex(const uint8_t* bytes, size_t n) {
    for (size_t i = 0; i < n; ++i) std::printf("%02x", bytes[i]);
}

struct Job {
    plic_limits limits = {PLIC_DEFAULT_MAX_PIXELS, PLIC_DEFAULT_MAX_MEMORY, 0};
    plic_options options = {};
    plic_model* model = nullptr;
    plic_error error = {PLIC_OK, ""};
    ~Job() { plic_model_close(model); }
};

int info(Job& job, const char* path) {
    Bytes file;
    plic_info i;
    if (!read_file(path, file)) return complain_of_system(path, "cannot read it");
    if (plic_read_info(file.data, file.size, &job.limits, &i, &job.error) != PLIC_OK)
        return complain(path, job.error.message);
    std::printf("version     %u\nwidth       %u\nheight      %u\ncomponents  %u\nquality     %u.%02u\nmodel       ",
                i.version, i.width, i.height, i.components, i.quality_hundredths / 100, i.quality_hundredths % 100);
    print_hex(i.model_id, sizeof i.model_id);
    std::printf("\nbytes       %zu\npayload     %zu in %u bands\nICC bytes   %zu\nEXIF bytes  %zu\n", file.size,
                i.payload_size, i.bands, i.icc_size, i.exif_size);
    return 0;
}

// Writes rows of pixels, and the header before the first of them: by then the file has proved to be this model's.
struct Rows {
    const char* path;
    const plic_info& info;
    Output out;
    int failure;  // errno
};

int write_rows(void* user, uint32_t first, uint32_t rows, const uint8_t* pixels) {
    auto* to = static_cast<Rows*>(user);
    const size_t row_bytes = size_t{to->info.width} * to->info.components;
    const bool opened = first != 0 || (to->out.open(to->path) &&
                                       std::fprintf(to->out.file, "P%d\n%u %u\n255\n", to->info.components == 3 ? 6 : 5,
                                                    to->info.width, to->info.height) >= 0);
    if (opened && std::fwrite(pixels, row_bytes, rows, to->out.file) == rows) return 0;
    to->failure = errno;
    return 1;
}

int decode(Job& job, const char* path, const char* target) {
    Bytes file;
    plic_info i;
    if (!read_file(path, file)) return complain_of_system(path, "cannot read it");
    if (plic_read_info(file.data, file.size, &job.limits, &i, &job.error) != PLIC_OK)
        return complain(path, job.error.message);
    Rows rows = {target, i, {}, 0};
    const plic_status status = plic_decode_rows(job.model, file.data, file.size, &job.limits, 0, i.height, write_rows,
                                                &rows, &job.error);
    if (status == PLIC_ERROR_STOPPED) errno = rows.failure;
    if (status == PLIC_ERROR_STOPPED || (status == PLIC_OK && !rows.out.finish()))
        return complain_of_system(target, "cannot write it");
    return status == PLIC_OK ? 0 : complain(path, job.error.message);
}

int hash(Job& job, const char* path) {
    Bytes file;
    plic_hashes h;
    if (!read_file(path, file)) return complain_of_system(path, "cannot read it");
    if (plic_hash(job.model, file.data, file.size, &job.limits, &h, &job.error) != PLIC_OK) {
        std::printf("error %d: %s  %s\n", static_cast<int>(job.error.status), job.error.message,
                    printable(path).c_str());
        return 2;
    }
    print_hex(h.symbols, sizeof h.symbols);
    std::printf(" ");
    print_hex(h.pixels, sizeof h.pixels);
    std::printf(" %llu %s\n", static_cast<unsigned long long>(h.memory), printable(path).c_str());
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
    if (!read_file(path, file)) return complain_of_system(path, "cannot read it");
    if (symbols(job, file, s) != PLIC_OK ||
        plic_encode_symbols(job.model, &s.info, &job.limits, &s.arrays, &made, &size, &job.error) != PLIC_OK)
        return complain(path, job.error.message);
    const int code = write_file(target, made, size);
    plic_release(made);
    return code;
}

struct Picture {
    std::FILE* file;
    size_t row_bytes;
};

int read_rows(void* user, uint32_t, uint32_t rows, uint8_t* pixels) {
    const auto* in = static_cast<const Picture*>(user);
    return std::fread(pixels, in->row_bytes, rows, in->file) == rows ? 0 : 1;
}

// The next number of a header of PPM or PGM, behind white space and comments.
bool header_number(std::FILE* file, uint32_t& number) {
    int c = std::fgetc(file);
    while (std::isspace(c) != 0 || c == '#') {
        if (c == '#')
            while (c != '\n' && c != EOF) c = std::fgetc(file);
        c = std::fgetc(file);
    }
    char digits[11] = {};
    size_t n = 0;
    for (; std::isdigit(c) != 0 && n < sizeof digits - 1; c = std::fgetc(file)) digits[n++] = static_cast<char>(c);
    uint64_t value = 0;
    const bool sound = std::isspace(c) != 0 && parse_number(digits, UINT32_MAX, value);
    number = static_cast<uint32_t>(value);
    return sound;
}

double milliseconds() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Writes the file to `target`; or, without one, prints the times of some runs.
int encode(Job& job, const char* path, const char* quality, const char* target, uint64_t runs) {
    const Input source(path);
    if (source.file == nullptr) return complain_of_system(path, "cannot read it");
    plic_info info = {};
    uint32_t greatest = 0;
    const int p = std::fgetc(source.file), kind = std::fgetc(source.file);
    if (p != 'P' || (kind != '5' && kind != '6') || !header_number(source.file, info.width) ||
        !header_number(source.file, info.height) || !header_number(source.file, greatest) || greatest != 255)
        return complain(path, "not a PPM or PGM of 8 bits");
    info.components = kind == '6' ? 3 : 1;
    char* end = nullptr;
    const double wanted = std::strtod(quality, &end);
    if (end == quality || *end != 0) return complain(quality, "not a number");
    // What does not even fit is out of range too, which the core says.
    info.quality_hundredths = wanted >= 0 && wanted <= 100 ? static_cast<uint32_t>(100 * wanted + 0.5) : UINT32_MAX;
    Picture in = {source.file, size_t{info.width} * info.components};
    const long begin = std::ftell(in.file);
    int code = 0;
    for (uint64_t r = 0; r < runs && code == 0; ++r) {
        uint8_t* made = nullptr;
        size_t size = 0;
        if (r > 0 && std::fseek(in.file, begin, SEEK_SET) != 0) return complain_of_system(path, "cannot read it again");
        const double start = milliseconds();
        const plic_status status = plic_encode(job.model, &info, &job.limits, read_rows, &in, &made, &size, &job.error);
        if (status != PLIC_OK)
            return complain(path, status == PLIC_ERROR_STOPPED ? "the picture is cut off" : job.error.message);
        if (target == nullptr) std::printf("%.3f\n", milliseconds() - start);
        else code = write_file(target, made, size);
        plic_release(made);
    }
    return code;
}

int bench(Job& job, const char* path, uint64_t runs) {
    Bytes file, pixels;
    if (!read_file(path, file)) return complain_of_system(path, "cannot read it");
    for (uint64_t r = 0; r < runs; ++r) {
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

int run(int argc, char** argv) {
    const std::string first = argc > 1 ? argv[1] : "";
    if (first == "--help" || first == "-h") {
        std::fputs(kUsage, stdout);
        return 0;
    }
    if (first == "--version" || first == "-v") {
        std::printf("plic %s\n", PLIC_VERSION);
        return 0;
    }
    Job job;
    int a = 1;
    for (; a + 1 < argc && std::strncmp(argv[a], "--", 2) == 0; a += 2) {
        uint64_t *limit = nullptr, threads = 0;
        if (std::strcmp(argv[a], "--max-pixels") == 0) limit = &job.limits.max_pixels;
        else if (std::strcmp(argv[a], "--max-memory") == 0) limit = &job.limits.max_memory;
        else if (std::strcmp(argv[a], "--threads") == 0) limit = &threads;
        else if (std::strcmp(argv[a], "--kernels") == 0) job.options.kernels = argv[a + 1];
        else return complain(argv[a], "unknown option");
        if (limit != nullptr && !parse_number(argv[a + 1], UINT64_MAX, *limit))
            return complain(argv[a + 1], "not a whole number");
        if (limit == &threads) job.limits.threads = static_cast<uint32_t>(std::min<uint64_t>(threads, UINT32_MAX));
    }
    const std::string command = a < argc ? argv[a] : "";
    const int rest = argc - a - 1;
    char** arguments = argv + a + 1;
    if (command == "kernels") {
        for (size_t i = 0; plic_kernels(i) != nullptr; ++i) std::printf("%s\n", plic_kernels(i));
        return 0;
    }
    if (command == "info" && rest == 1) return info(job, arguments[0]);
    const bool decodes = command == "decode", recodes = command == "recode", encodes = command == "encode";
    const bool benches = command == "bench", times = command == "bench-encode", hashes = command == "hash";
    const bool three = decodes || recodes || benches, four = encodes || times;
    if (!(three && rest == 3) && !(four && rest == 4) && !(hashes && rest >= 2)) {
        std::fputs(kUsage, stderr);
        return 2;
    }
    const char* last = arguments[rest - 1];
    uint64_t runs = 1;
    if ((benches || times) && (!parse_number(last, INT_MAX, runs) || runs == 0))
        return complain(last, "not a number of runs");
    if (decodes || recodes || encodes) {
        if (same_file(last, arguments[0]) || same_file(last, arguments[1]))
            return complain(last, "is one of the inputs, which would be lost");
        if (encodes && is_picture_name(last)) return complain(last, "is named like a picture; name it .plic");
        if (decodes && ends_in(last, ".plic")) return complain(last, "is named like an encoded file; name it .ppm");
    }
    Bytes weights;
    if (!read_file(arguments[0], weights)) return complain_of_system(arguments[0], "cannot read it");
    if (plic_model_open(weights.data, weights.size, &job.options, &job.model, &job.error) != PLIC_OK)
        return complain(arguments[0], job.error.message);
    if (decodes) return decode(job, arguments[1], last);
    if (encodes) return encode(job, arguments[1], arguments[2], last, 1);
    if (times) return encode(job, arguments[1], arguments[2], nullptr, runs);
    if (recodes) return recode(job, arguments[1], last);
    if (benches) return bench(job, arguments[1], runs);
    int code = 0;
    for (int i = 1; i < rest; ++i)
        if (hash(job, arguments[i]) != 0) code = 2;
    return code;
}

}  // namespace

int main(int argc, char** argv) {
    prepare_signals();
    const int code = run(argc, argv);
    if (code != 0 || (std::fflush(stdout) == 0 && std::ferror(stdout) == 0)) return code;
    return complain_of_system("standard output", "cannot write it");
}
