package com.google.ai.edge.litert;

public interface NpuAcceleratorProvider {
    boolean isDeviceSupported();
    boolean isLibraryReady();
    String getLibraryDir();
}
