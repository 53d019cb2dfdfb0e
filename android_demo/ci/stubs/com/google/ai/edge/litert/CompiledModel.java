package com.google.ai.edge.litert;

import android.content.res.AssetManager;
import java.util.List;

public class CompiledModel implements AutoCloseable {
    public static class CpuOptions {
        public CpuOptions(Integer numThreads, Integer xnnPackFlags, String xnnPackWeightCachePath) {}
    }

    public static class Options {
        public Options(Accelerator... accelerators) {}
        public native CpuOptions getCpuOptions();
        public native void setCpuOptions(CpuOptions options);
    }

    public static native CompiledModel create(AssetManager assets, String name, Options options);
    public native List<TensorBuffer> createInputBuffers();
    public native List<TensorBuffer> createOutputBuffers();
    public native void run(List<? extends TensorBuffer> inputs, List<? extends TensorBuffer> outputs);
    @Override public native void close();
}
