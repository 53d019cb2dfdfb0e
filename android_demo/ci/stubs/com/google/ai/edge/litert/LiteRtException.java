package com.google.ai.edge.litert;

public final class LiteRtException extends Exception {}
