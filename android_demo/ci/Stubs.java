import static org.objectweb.asm.Opcodes.*;

import jadx.api.JadxArgs;
import jadx.core.clsp.*;
import jadx.core.dex.instructions.args.ArgType;
import jadx.core.dex.nodes.RootNode;
import java.io.FileOutputStream;
import java.nio.file.*;
import java.util.*;
import java.util.zip.*;
import org.objectweb.asm.*;

/**
 * Writes android.jar's signatures as class files: java Stubs.java LINES OUT.jar
 *
 * jadx knows the classes and methods, with flags and generics; LINES (signatures.py) adds fields, and what API 36 has
 * besides. No method has a body that does anything.
 */
public class Stubs {
    static final Map<String, ClspClass> known = new HashMap<>();
    static final Map<String, List<String[]>> lines = new TreeMap<>();
    static final Map<String, List<String>> nested = new HashMap<>();

    public static void main(String[] arguments) throws Exception {
        ClsSet set = new ClsSet(new RootNode(new JadxArgs()));
        set.loadFromClstFile();
        set.addToMap(known);
        for (String name : known.keySet()) add(name.replace('.', '/'));
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            String[] words = line.split(" ");
            add(words[1]).add(words);
        }
        try (ZipOutputStream jar = new ZipOutputStream(new FileOutputStream(arguments[1]))) {
            for (String name : lines.keySet()) {
                jar.putNextEntry(new ZipEntry(name + ".class"));
                jar.write(write(name));
            }
        }
    }

    static List<String[]> add(String name) {
        if (!lines.containsKey(name)) {
            lines.put(name, new ArrayList<>());
            if (name.contains("$")) nested.computeIfAbsent(outer(name), k -> new ArrayList<>()).add(name);
        }
        return lines.get(name);
    }

    static String outer(String name) {
        return name.substring(0, name.lastIndexOf('$'));
    }

    static boolean isInterface(String name) {
        ClspClass known = Stubs.known.get(name.replace('/', '.'));
        if (known == null) {
            for (String[] line : lines.getOrDefault(name, List.of()))
                if (line[0].equals("class")) return line[2].equals("interface");
            return false;
        }
        if (known.getParents().length == 0 || !known.getParents()[0].equals(ArgType.OBJECT)) return false;
        boolean anyAbstract = false;
        for (ClspMethod method : known.getMethodsMap().values()) {
            if (method.getMethodInfo().isConstructor()) return false;
            int flags = method.getRawAccessFlags();
            anyAbstract |= (flags & ACC_ABSTRACT) != 0;
            // A default method of an interface is never final, and never one of Object's.
            String called = method.getMethodInfo().getName();
            boolean ofObject = List.of("equals", "hashCode", "toString").contains(called);
            if ((flags & (ACC_ABSTRACT | ACC_STATIC)) == 0 && ((flags & ACC_FINAL) != 0 || ofObject)) return false;
        }
        return anyAbstract;
    }

    static byte[] write(String name) {
        ClspClass known = Stubs.known.get(name.replace('/', '.'));
        boolean isInterface = isInterface(name);
        String superclass = "java/lang/Object", signature = null;
        List<String> interfaces = new ArrayList<>();
        if (known != null) {
            StringBuilder text = new StringBuilder(formal(known.getTypeParameters()));
            ArgType[] parents = known.getParents();
            for (int i = 0; i < parents.length; i++) {
                String raw = internal(parents[i]);
                text.append(signature(parents[i]));
                if (i == 0 && !isInterface(raw)) superclass = raw;
                else if (!raw.equals("java/lang/Object")) interfaces.add(raw);
            }
            if (parents.length > 0 && text.toString().contains("<")) signature = text.toString();
        } else {
            for (String[] line : lines.get(name))
                for (int i = 3; line[0].equals("class") && i < line.length; i++)
                    if (isInterface || isInterface(line[i]) || isInterfaceOfJava(line[i])) interfaces.add(line[i]);
                    else superclass = line[i];
            interfaces.remove("java/lang/Object");
        }
        boolean isEnum = superclass.equals("java/lang/Enum");
        int access = ACC_PUBLIC | (isInterface ? ACC_INTERFACE | ACC_ABSTRACT : ACC_SUPER) | (isEnum ? ACC_ENUM : 0);
        Set<String> methods = new HashSet<>();
        ClassWriter out = new ClassWriter(0);
        boolean isAbstract = false;
        if (known != null)
            for (ClspMethod m : known.getMethodsMap().values())
                isAbstract |= (m.getRawAccessFlags() & ACC_ABSTRACT) != 0;
        if (name.equals("java/lang/Object")) superclass = null;
        out.visit(V1_8, access | (isAbstract ? ACC_ABSTRACT : 0), name, signature, superclass,
            interfaces.toArray(new String[0]));
        List<String> inner = new ArrayList<>(nested.getOrDefault(name, List.of()));
        for (String n = name; n.contains("$"); n = outer(n)) inner.add(n);
        for (String n : inner)
            out.visitInnerClass(n, outer(n), n.substring(n.lastIndexOf('$') + 1),
                ACC_PUBLIC | ACC_STATIC | (isInterface(n) ? ACC_INTERFACE | ACC_ABSTRACT : 0));
        if (known != null)
            for (ClspMethod m : known.getSortedMethodsList()) {
                if (m.getMethodInfo().getName().equals("<clinit>")) continue;
                StringBuilder generic = new StringBuilder(formal(m.getTypeParameters())).append('(');
                for (ArgType type : m.getArgTypes()) generic.append(signature(type));
                generic.append(')').append(signature(m.getReturnType()));
                String text = generic.toString(), shortId = m.getMethodInfo().getShortId();
                String descriptor = shortId.substring(shortId.indexOf('('));
                method(out, methods, isInterface, m.getRawAccessFlags() & 0xffff, m.getMethodInfo().getName(),
                    descriptor, text.equals(descriptor) ? null : text);
            }
        for (String[] line : lines.get(name)) {
            boolean isStatic = line[line.length - 1].equals("static");
            if (line[0].equals("field"))
                out.visitField(ACC_PUBLIC | (isStatic ? ACC_STATIC | ACC_FINAL : 0)
                    | (isEnum && line[3].equals("L" + name + ";") ? ACC_ENUM : 0), line[2], line[3], null, null);
            else if (line[0].equals("method") && !isBridge(known, line[2], line[3]))
                // Methods that newer systems add to an interface have a default.
                method(out, methods, isInterface,
                    ACC_PUBLIC | (isStatic ? ACC_STATIC : isInterface && known == null ? ACC_ABSTRACT : 0), line[2],
                    line[3].replaceFirst("^(\\(.*\\)).*", line[2].equals("<init>") ? "$1V" : "$0"), null);
        }
        out.visitEnd();
        return out.toByteArray();
    }

    /** Whether a method of LINES is one that jadx knows with a parameter's own type in place of Object. */
    static boolean isBridge(ClspClass known, String name, String descriptor) {
        if (known == null) return false;
        Type[] types = Type.getArgumentTypes(descriptor);
        for (ClspMethod m : known.getMethodsMap().values()) {
            String shortId = m.getMethodInfo().getShortId();
            Type[] own = Type.getArgumentTypes(shortId.substring(shortId.indexOf('(')));
            boolean same = m.getMethodInfo().getName().equals(name) && own.length == types.length;
            for (int i = 0; same && i < own.length; i++)
                same = own[i].equals(types[i]) || types[i].getInternalName().equals("java/lang/Object");
            if (same) return true;
        }
        return false;
    }

    static boolean isInterfaceOfJava(String name) {
        try {
            return name.startsWith("java/") && Class.forName(name.replace('/', '.')).isInterface();
        } catch (ClassNotFoundException missing) {
            return false;
        }
    }

    static void method(ClassWriter out, Set<String> made, boolean inInterface, int access, String name,
            String descriptor, String signature) {
        if (!made.add(name + descriptor.substring(0, descriptor.indexOf(')')))) return;
        if (inInterface && name.equals("<init>")) return;
        access &= ~(ACC_NATIVE | ACC_SYNCHRONIZED);
        MethodVisitor method = out.visitMethod(access, name, descriptor, signature, null);
        if ((access & ACC_ABSTRACT) == 0) {
            method.visitCode();
            method.visitInsn(ACONST_NULL);
            method.visitInsn(ATHROW);
            method.visitMaxs(1, Type.getArgumentsAndReturnSizes(descriptor) >> 2);
        }
        method.visitEnd();
    }

    static String internal(ArgType type) {
        return type.getObject().replace('.', '/');
    }

    /** <T extends A & B> */
    static String formal(List<ArgType> parameters) {
        if (parameters.isEmpty()) return "";
        StringBuilder text = new StringBuilder("<");
        for (ArgType parameter : parameters) {
            text.append(parameter.getObject()).append(':');
            List<ArgType> bounds = parameter.getExtendTypes();
            if (bounds == null || bounds.isEmpty()) text.append("Ljava/lang/Object;");
            else for (int i = 0; i < bounds.size(); i++)
                text.append(i > 0 || isInterface(internal(bounds.get(i))) ? ":" : "").append(signature(bounds.get(i)));
        }
        return text.append('>').toString();
    }

    static String signature(ArgType type) {
        if (type.isArray()) return "[" + signature(type.getArrayElement());
        if (type.isPrimitive()) return type.getPrimitiveType().getShortName();
        if (type.isWildcard())
            switch (type.getWildcardBound()) {
                case EXTENDS: return "+" + signature(type.getWildcardType());
                case SUPER: return "-" + signature(type.getWildcardType());
                default: return "*";
            }
        if (type.isGenericType()) return "T" + type.getObject() + ";";
        StringBuilder text = new StringBuilder("L").append(internal(type));
        if (type.isGeneric() && type.getGenericTypes() != null) {
            text.append('<');
            for (ArgType argument : type.getGenericTypes()) text.append(signature(argument));
            text.append('>');
        }
        return text.append(';').toString();
    }
}
