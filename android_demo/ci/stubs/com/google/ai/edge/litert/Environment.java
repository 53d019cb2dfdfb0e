package com.google.ai.edge.litert;

public final class Environment extends JniHandle {
    public static native Environment create() throws LiteRtException;
    public static native Environment create(NpuAcceleratorProvider provider) throws LiteRtException;
}
