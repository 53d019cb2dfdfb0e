package androidx.test.ext.junit.runners;

import org.junit.runner.Runner;

public abstract class AndroidJUnit4 extends Runner {}
