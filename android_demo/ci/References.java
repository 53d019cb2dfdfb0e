import java.io.File;
import org.jf.dexlib2.*;
import org.jf.dexlib2.iface.*;
import org.jf.dexlib2.iface.instruction.*;
import org.jf.dexlib2.iface.reference.*;

/**
 * Prints the classes and references of a DEX file: java References.java FILE.dex
 *
 *     class NAME SUPERCLASS INTERFACE...        a class in the file
 *     method|field IN OWNER NAME TYPE           a reference, and in which method it is; TYPE is a descriptor
 *     type IN NAME - -                          the same to a class
 */
public class References {
    public static void main(String[] arguments) throws Exception {
        for (ClassDef type : DexFileFactory.loadDexFile(new File(arguments[0]), Opcodes.getDefault()).getClasses()) {
            String interfaces = String.join(" ", type.getInterfaces());
            System.out.println("class " + type.getType() + " " + type.getSuperclass() + " " + interfaces);
            for (Method in : type.getMethods()) {
                if (in.getImplementation() == null) continue;
                String where = type.getType() + "->" + in.getName();
                for (Instruction instruction : in.getImplementation().getInstructions()) {
                    if (!(instruction instanceof ReferenceInstruction)) continue;
                    Reference to = ((ReferenceInstruction) instruction).getReference();
                    if (to instanceof TypeReference) {
                        print("type", where, ((TypeReference) to).getType(), "-", "-");
                    } else if (to instanceof MethodReference) {
                        MethodReference m = (MethodReference) to;
                        String parameters = String.join("", m.getParameterTypes());
                        print("method", where, m.getDefiningClass(), m.getName(), "(" + parameters + ")" + m.getReturnType());
                    } else if (to instanceof FieldReference) {
                        FieldReference f = (FieldReference) to;
                        print("field", where, f.getDefiningClass(), f.getName(), f.getType());
                    }
                }
            }
        }
    }

    static void print(String... words) {
        System.out.println(String.join(" ", words));
    }
}
