package org.pytorch.executorch;

public class Module {
    public static native Module load(String path);
    public native EValue[] forward(EValue... inputs);
    public native void destroy();
}
