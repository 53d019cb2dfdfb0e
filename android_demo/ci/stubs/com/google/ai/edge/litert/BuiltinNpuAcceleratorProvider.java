package com.google.ai.edge.litert;

import android.content.Context;

public final class BuiltinNpuAcceleratorProvider implements NpuAcceleratorProvider {
    public BuiltinNpuAcceleratorProvider(Context context) {}
    @Override public native boolean isDeviceSupported();
    @Override public native boolean isLibraryReady();
    @Override public native String getLibraryDir();
}
