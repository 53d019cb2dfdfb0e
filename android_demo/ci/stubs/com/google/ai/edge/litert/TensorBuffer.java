package com.google.ai.edge.litert;

public final class TensorBuffer extends JniHandle {
    public native void writeInt8(byte[] data) throws LiteRtException;
    public native byte[] readInt8() throws LiteRtException;
}
