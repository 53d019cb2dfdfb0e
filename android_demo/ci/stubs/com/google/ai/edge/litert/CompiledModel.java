package com.google.ai.edge.litert;

import android.content.res.AssetManager;
import java.util.List;

public final class CompiledModel extends JniHandle {
    public static final class CpuOptions {
        public CpuOptions(Integer numThreads, Integer xnnPackFlags, String xnnPackWeightCachePath) {}
    }

    public static final class Options {
        public Options(Accelerator... accelerators) {}
        public native CpuOptions getCpuOptions();
        public native void setCpuOptions(CpuOptions options);
    }

    public static native CompiledModel create(AssetManager assets, String name, Options options, Environment environment)
        throws LiteRtException;
    public native List<TensorBuffer> createInputBuffers() throws LiteRtException;
    public native List<TensorBuffer> createOutputBuffers() throws LiteRtException;
    public native void run(List<TensorBuffer> inputs, List<TensorBuffer> outputs) throws LiteRtException;
}
