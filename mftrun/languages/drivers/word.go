// Package word holds the word that is said once all tests have been passed. It is set up before the program,
// which cannot import it: its path is another one for every program.
package word

import "syscall"

var word []byte
var process int

const setDumpable = 4

func init() {
	buffer := make([]byte, 256)
	for {
		count, err := syscall.Read(0, buffer)
		if err == syscall.EINTR {
			continue
		}
		if count <= 0 {
			break
		}
		word = append(word, buffer[:count]...)
	}
	for i := range buffer {
		buffer[i] = 0
	}
	process = syscall.Getpid()
	// What has been read cannot be read again, nor found in /proc/self/mem.
	syscall.Close(0)
	syscall.Open("/dev/null", syscall.O_RDONLY, 0)
	syscall.RawSyscall(syscall.SYS_PRCTL, setDumpable, 0, 0)
}

// Say writes the word, unless this is a child.
func Say() {
	if syscall.Getpid() != process {
		return
	}
	syscall.Write(1, append(append([]byte{'\n'}, word...), '\n'))
}
