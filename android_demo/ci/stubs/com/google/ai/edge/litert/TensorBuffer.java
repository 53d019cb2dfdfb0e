package com.google.ai.edge.litert;

public class TensorBuffer implements AutoCloseable {
    public native void writeInt8(byte[] data);
    public native byte[] readInt8();
    @Override public native void close();
}
