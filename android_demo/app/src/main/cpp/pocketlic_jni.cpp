// JNI functions of the native core: the app's class Native, method by method. plic.h documents them.
//
// Failures become a PlicException. An exception in a callback ends the call and reaches its caller. An exception in a
// runner is dropped, and the core computes that network itself.
#include <jni.h>

#include <cstdlib>
#include <cstring>

#include "plic.h"

namespace {

constexpr uint32_t kMaxTensors = 16;

struct Engine {
    plic_model* model = nullptr;
    JavaVM* machine = nullptr;
    jobject runner = nullptr;
};

Engine* engine(jlong handle) { return reinterpret_cast<Engine*>(handle); }

// A Java array's bytes, valid while this object lives.
class Bytes {
public:
    Bytes(JNIEnv* env, jbyteArray array)
        : env_(env), array_(array), size_(static_cast<size_t>(env->GetArrayLength(array))),
          data_(env->GetByteArrayElements(array, nullptr)) {}
    ~Bytes() {
        if (data_ != nullptr) env_->ReleaseByteArrayElements(array_, data_, JNI_ABORT);
    }
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;
    const uint8_t* data() const { return reinterpret_cast<const uint8_t*>(data_); }
    size_t size() const { return size_; }

private:
    JNIEnv* env_;
    jbyteArray array_;
    size_t size_;
    jbyte* data_;
};

void fail(JNIEnv* env, const plic_error& error) {
    if (env->ExceptionCheck()) return;
    jclass type = env->FindClass("org/pocketlic/demo/PlicException");
    if (type == nullptr) return;
    jmethodID make = env->GetMethodID(type, "<init>", "(ILjava/lang/String;)V");
    jstring message = env->NewStringUTF(error.message);
    if (make == nullptr || message == nullptr) return;
    env->Throw(static_cast<jthrowable>(env->NewObject(type, make, static_cast<jint>(error.status), message)));
}

jbyteArray to_java(JNIEnv* env, const uint8_t* data, size_t size) {
    jbyteArray array = env->NewByteArray(static_cast<jsize>(size));
    if (array != nullptr)
        env->SetByteArrayRegion(array, 0, static_cast<jsize>(size), reinterpret_cast<const jbyte*>(data));
    return array;
}

// State of a callback; `rows` is the array that carries pixels.
struct Rows {
    JNIEnv* env;
    jobject target;
    jmethodID method;
    jbyteArray rows;
    size_t row_bytes, room;  // room: how many rows the array holds
};

constexpr size_t kRoomRows = 512;

// Hands rows on in pieces that the array holds, however many the core gives.
int give_rows(void* user, uint32_t first, uint32_t rows, const uint8_t* pixels) {
    const auto* r = static_cast<const Rows*>(user);
    for (size_t done = 0; done < rows;) {
        const size_t count = rows - done < r->room ? rows - done : r->room;
        r->env->SetByteArrayRegion(r->rows, 0, static_cast<jsize>(count * r->row_bytes),
                                   reinterpret_cast<const jbyte*>(pixels + done * r->row_bytes));
        const jboolean go_on = r->env->CallBooleanMethod(r->target, r->method, static_cast<jint>(first + done),
                                                         static_cast<jint>(count), r->rows);
        if (r->env->ExceptionCheck() || go_on == JNI_FALSE) return 1;
        done += count;
    }
    return 0;
}

int take_row(void* user, uint32_t first, uint32_t, uint8_t* pixels) {
    const auto* r = static_cast<const Rows*>(user);
    const jboolean go_on = r->env->CallBooleanMethod(r->target, r->method, static_cast<jint>(first), r->rows);
    if (r->env->ExceptionCheck() || go_on == JNI_FALSE) return 1;
    r->env->GetByteArrayRegion(r->rows, 0, static_cast<jsize>(r->row_bytes), reinterpret_cast<jbyte*>(pixels));
    return 0;
}

// Calls the app's runner for a network, on direct buffers over the core's own memory.
int run_network(void* user, const char* name, uint32_t height, uint32_t width, const int8_t* const* inputs,
                int8_t* const* outputs) {
    const auto* e = static_cast<const Engine*>(user);
    JNIEnv* env = nullptr;
    plic_tensor tensors[kMaxTensors];
    uint32_t count = kMaxTensors, ins = 0;
    if (e->machine->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_6) != JNI_OK ||
        plic_network(e->model, name, height, width, tensors, &count, &ins, nullptr) != PLIC_OK || count > kMaxTensors ||
        env->PushLocalFrame(static_cast<jint>(count) + 8) != 0)
        return 1;
    bool done = false;
    jclass buffer = env->FindClass("java/nio/ByteBuffer");
    jobjectArray in = env->NewObjectArray(static_cast<jsize>(ins), buffer, nullptr);
    jobjectArray out = env->NewObjectArray(static_cast<jsize>(count - ins), buffer, nullptr);
    jstring called = env->NewStringUTF(name);
    jmethodID run = env->GetMethodID(env->GetObjectClass(e->runner), "run",
                                     "(Ljava/lang/String;II[Ljava/nio/ByteBuffer;[Ljava/nio/ByteBuffer;)Z");
    if (in != nullptr && out != nullptr && called != nullptr && run != nullptr) {
        for (uint32_t i = 0; i < count; ++i) {
            const plic_tensor& t = tensors[i];
            // Inputs are only read.
            void* data = i < ins ? const_cast<int8_t*>(inputs[i]) : outputs[i - ins];
            jobject view = env->NewDirectByteBuffer(data, jlong{t.height} * t.width * t.channels);
            env->SetObjectArrayElement(i < ins ? in : out, static_cast<jsize>(i < ins ? i : i - ins), view);
        }
        done = env->CallBooleanMethod(e->runner, run, called, static_cast<jint>(height), static_cast<jint>(width), in,
                                      out) != JNI_FALSE;
    }
    if (env->ExceptionCheck()) {
        env->ExceptionClear();
        done = false;
    }
    env->PopLocalFrame(nullptr);
    return done ? 0 : 1;
}

plic_limits limits_of(jlong max_memory) {
    return {PLIC_DEFAULT_MAX_PIXELS, static_cast<uint64_t>(max_memory), 0};
}

}  // namespace

#define NATIVE(type, name) extern "C" JNIEXPORT type JNICALL Java_org_pocketlic_demo_Native_##name

NATIVE(jlong, open)(JNIEnv* env, jobject, jbyteArray weights, jobject runner, jint tile) {
    const Bytes data(env, weights);
    plic_error error;
    auto* e = static_cast<Engine*>(std::calloc(1, sizeof(Engine)));
    if (e == nullptr || data.data() == nullptr) {
        std::free(e);
        error = {PLIC_ERROR_MEMORY, "out of memory"};
        fail(env, error);
        return 0;
    }
    plic_options options = {};
    if (runner != nullptr) {
        env->GetJavaVM(&e->machine);
        e->runner = env->NewGlobalRef(runner);
        options.runner = run_network;
        options.user = e;
        options.tile = static_cast<uint32_t>(tile);
    }
    if (plic_model_open(data.data(), data.size(), &options, &e->model, &error) == PLIC_OK)
        return reinterpret_cast<jlong>(e);
    if (e->runner != nullptr) env->DeleteGlobalRef(e->runner);
    std::free(e);
    fail(env, error);
    return 0;
}

NATIVE(void, close)(JNIEnv* env, jobject, jlong handle) {
    Engine* e = engine(handle);
    plic_model_close(e->model);
    if (e->runner != nullptr) env->DeleteGlobalRef(e->runner);
    std::free(e);
}

NATIVE(jbyteArray, modelId)(JNIEnv* env, jobject, jlong handle) {
    plic_model_info info;
    plic_model_describe(engine(handle)->model, &info);
    return to_java(env, info.id, sizeof info.id);
}

NATIVE(jstring, profile)(JNIEnv* env, jobject, jlong handle) {
    plic_model_info info;
    plic_model_describe(engine(handle)->model, &info);
    return env->NewStringUTF(info.profile);
}

// width, height, components, quality in hundredths, and the first 8 bytes of the model's id as two halves
NATIVE(jintArray, info)(JNIEnv* env, jobject, jbyteArray file) {
    const Bytes data(env, file);
    plic_info info;
    plic_error error;
    if (plic_read_info(data.data(), data.size(), nullptr, &info, &error) != PLIC_OK) {
        fail(env, error);
        return nullptr;
    }
    uint32_t id[2] = {};
    for (int i = 0; i < 8; ++i) id[i / 4] = id[i / 4] << 8 | info.model_id[i];
    const jint values[] = {static_cast<jint>(info.width),
                           static_cast<jint>(info.height),
                           static_cast<jint>(info.components),
                           static_cast<jint>(info.quality_hundredths),
                           static_cast<jint>(id[0]),
                           static_cast<jint>(id[1])};
    constexpr jsize count = sizeof values / sizeof values[0];
    jintArray result = env->NewIntArray(count);
    if (result != nullptr) env->SetIntArrayRegion(result, 0, count, values);
    return result;
}

NATIVE(void, decode)(JNIEnv* env, jobject, jlong handle, jbyteArray file, jlong max_memory, jint threads,
                     jobject sink) {
    const Bytes data(env, file);
    plic_limits limits = limits_of(max_memory);
    limits.threads = static_cast<uint32_t>(threads);
    plic_info info;
    plic_error error;
    if (plic_read_info(data.data(), data.size(), &limits, &info, &error) != PLIC_OK) return fail(env, error);
    const size_t room = info.height < kRoomRows ? info.height : kRoomRows;
    Rows rows = {env, sink, env->GetMethodID(env->GetObjectClass(sink), "rows", "(II[B)Z"), nullptr,
                 size_t{info.width} * info.components, room};
    rows.rows = env->NewByteArray(static_cast<jsize>(room * rows.row_bytes));
    if (rows.method == nullptr || rows.rows == nullptr) return;  // an exception is pending
    if (plic_decode_rows(engine(handle)->model, data.data(), data.size(), &limits, 0, info.height, give_rows, &rows,
                         &error) != PLIC_OK)
        fail(env, error);
}

NATIVE(jbyteArray, encode)(JNIEnv* env, jobject, jlong handle, jint width, jint height, jint components, jint quality,
                           jlong max_memory, jobject source) {
    plic_info info = {};
    info.width = static_cast<uint32_t>(width);
    info.height = static_cast<uint32_t>(height);
    info.components = static_cast<uint32_t>(components);
    info.quality_hundredths = static_cast<uint32_t>(quality);
    const plic_limits limits = limits_of(max_memory);
    Rows rows = {env, source, env->GetMethodID(env->GetObjectClass(source), "row", "(I[B)Z"), nullptr,
                 static_cast<size_t>(width) * static_cast<size_t>(components), 1};
    rows.rows = env->NewByteArray(static_cast<jsize>(rows.row_bytes));
    if (rows.method == nullptr || rows.rows == nullptr) return nullptr;
    plic_error error;
    uint8_t* made = nullptr;
    size_t size = 0;
    if (plic_encode(engine(handle)->model, &info, &limits, take_row, &rows, &made, &size, &error) != PLIC_OK) {
        fail(env, error);
        return nullptr;
    }
    jbyteArray result = to_java(env, made, size);
    plic_release(made);
    return result;
}

// SHA-256 of the symbols, then of the pixels
NATIVE(jbyteArray, hash)(JNIEnv* env, jobject, jlong handle, jbyteArray file, jlong max_memory) {
    const Bytes data(env, file);
    const plic_limits limits = limits_of(max_memory);
    plic_hashes hashes;
    plic_error error;
    if (plic_hash(engine(handle)->model, data.data(), data.size(), &limits, &hashes, &error) != PLIC_OK) {
        fail(env, error);
        return nullptr;
    }
    uint8_t both[64];
    std::memcpy(both, hashes.symbols, 32);
    std::memcpy(both + 32, hashes.pixels, 32);
    return to_java(env, both, sizeof both);
}

// Entropy decoding alone; returns the number of symbols.
NATIVE(jlong, symbols)(JNIEnv* env, jobject, jlong handle, jbyteArray file, jlong max_memory) {
    const Bytes data(env, file);
    const plic_limits limits = limits_of(max_memory);
    plic_info info;
    plic_symbols s = {};
    plic_error error;
    plic_status status = plic_read_info(data.data(), data.size(), &limits, &info, &error);
    if (status == PLIC_OK) status = plic_allocate_symbols(engine(handle)->model, &info, &s, &error);
    if (status == PLIC_OK)
        status = plic_decode_symbols(engine(handle)->model, data.data(), data.size(), &limits, &s, &error);
    if (status != PLIC_OK) fail(env, error);
    plic_free_symbols(&s);
    return static_cast<jlong>(s.z_count + s.y_count + s.details_count);
}

// Runs a network on direct buffers, to compare the app's runners with.
NATIVE(void, run)(JNIEnv* env, jobject, jlong handle, jstring name, jint height, jint width, jobjectArray inputs,
                  jobjectArray outputs) {
    const int8_t* in[kMaxTensors];
    int8_t* out[kMaxTensors];
    for (jsize i = 0; i < env->GetArrayLength(inputs); ++i)
        in[i] = static_cast<int8_t*>(env->GetDirectBufferAddress(env->GetObjectArrayElement(inputs, i)));
    for (jsize i = 0; i < env->GetArrayLength(outputs); ++i)
        out[i] = static_cast<int8_t*>(env->GetDirectBufferAddress(env->GetObjectArrayElement(outputs, i)));
    const char* called = env->GetStringUTFChars(name, nullptr);
    plic_error error;
    if (plic_run(engine(handle)->model, called, static_cast<uint32_t>(height), static_cast<uint32_t>(width), 0, in, out,
                 nullptr, &error) != PLIC_OK)
        fail(env, error);
    env->ReleaseStringUTFChars(name, called);
}
