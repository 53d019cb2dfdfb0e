package org.pytorch.executorch;

import java.io.Closeable;

public class Module implements Closeable {
    public static final int LOAD_MODE_FILE = 0;
    public static native Module load(String path, int loadMode, int numThreads);
    public native EValue[] forward(EValue... inputs);
    public native void destroy();
    @Override public native void close();
}
