package org.pytorch.executorch;

public abstract class Tensor {
    public static native Tensor fromBlob(byte[] data, long[] shape);
    public native byte[] getDataAsByteArray();
}
