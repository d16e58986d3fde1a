package mftrun;

import java.io.File;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;

/** Runs the tests of a program, and says the word it was given once they have come to their end. */
public final class Driver {
    // A program that brings its own class of a name in these packages would decide what the tests mean.
    private static final String[] OF_THE_TESTS = {"java.lang.", "java.util."};
    private static final String CLASS = ".class";
    // The word is never as it is in memory while the program runs: a dump of the heap does not show it.
    private static final byte MASK = 0x5a;

    public static void main(String[] arguments) throws Throwable {
        byte[] word = taken();
        refuseOwnClasses(new File(arguments[0]));
        Method tests = Class.forName("Main").getMethod("main", String[].class);
        tests.setAccessible(true);
        try {
            tests.invoke(null, (Object) new String[0]);
        } catch (InvocationTargetException failure) {
            throw failure.getCause();
        }
        say(word);
    }

    private static byte[] taken() throws IOException {
        byte[] word = new byte[256];
        int size = 0;
        try (FileInputStream stream = new FileInputStream(FileDescriptor.in)) {
            for (int next = stream.read(); next >= 0; next = stream.read()) {
                word[size++] = (byte) (next ^ MASK);
            }
        }
        return java.util.Arrays.copyOf(word, size);
    }

    private static void refuseOwnClasses(File folder) throws IOException {
        String[] files = folder.list();
        if (files == null) {
            throw new IOException("cannot list " + folder);
        }
        for (String file : files) {
            String name = file.endsWith(CLASS) ? file.substring(0, file.length() - CLASS.length()) : "$";
            if (!name.contains("$") && isOfTheTests(name)) {
                throw new IllegalStateException("the program has a class " + name + ", as Java has, for its tests");
            }
        }
    }

    private static boolean isOfTheTests(String name) {
        for (String of : OF_THE_TESTS) {
            try {
                Class.forName(of + name, false, null); // Java's own loader
                return true;
            } catch (ClassNotFoundException free) {
                continue;
            }
        }
        return false;
    }

    private static void say(byte[] word) throws IOException {
        byte[] line = new byte[word.length + 2];
        line[0] = '\n';
        for (int i = 0; i < word.length; i++) {
            line[i + 1] = (byte) (word[i] ^ MASK);
        }
        line[word.length + 1] = '\n';
        System.out.flush();
        try (FileOutputStream stream = new FileOutputStream(FileDescriptor.out)) {
            stream.write(line);
        }
    }
}
