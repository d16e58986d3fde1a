// Runs a program, and says the word that stands on its standard input once nothing is left to be done and no
// assertion has failed.
//
// What a program cannot do: end the process, replace or remove console.assert, or print anything; nothing but
// the end of its text and of what it started leads to the word, which a closure alone holds, outside the heap.
//
// Nor can it look at the driver with a debugger, or leave before its tests by a return.
//
// What it can do: go through its own memory (/proc/self/mem, a library of its own), say in a callback of its own that
// nothing is left to be done, or assert something true before it hides console from its tests. A program that
// sets out to deceive its tests is their equal, as they run in one process.
'use strict';
const fs = require('fs');
const Module = require('module');

const vm = require('vm');
const workers = require('worker_threads');

const { apply } = Reflect;
const { writeSync } = fs;
const [, , path] = process.argv;

const word = Buffer.alloc(256); // not of the pool that all small buffers share
const length = fs.readSync(0, word, 1, 254) + 2;
word[0] = word[length - 1] = 10;
fs.closeSync(0);
fs.openSync('/dev/null', 'r');

const { assert } = console;
let [failed, asserted, finished] = [0, 0, false];
const checked = (condition, ...words) => {
  asserted += 1;
  if (!condition) {
    failed += 1;
    process.exitCode = 1;
  }
  apply(assert, console, [condition, ...words]);
};
const fixed = { writable: false, configurable: false, enumerable: true };
Object.defineProperty(console, 'assert', { value: checked, ...fixed });
Object.defineProperty(globalThis, 'console', { value: console, ...fixed });

// A debugger would see the word: none is started in this process, nor in a worker of it.
const refused = function () {
  throw new Error('not here: programs start neither debuggers nor workers');
};
const refuse = (owner, ...names) => {
  for (const name of names) Object.defineProperty(owner, name, { value: refused, ...fixed });
};
if (process.features.inspector) {
  const inspector = require('inspector');
  refuse(inspector.Session.prototype, 'connect', 'connectToMainThread');
  refuse(inspector, 'open');
}
refuse(workers, 'Worker');
refuse(process, 'binding', '_linkedBinding', '_debugProcess');
process.on('SIGUSR1', () => {}); // else it starts a debugger
Module.syncBuiltinESMExports();

const source = fs.readFileSync(path, 'utf8');
new vm.Script(source, { filename: path }); // where a return outside of functions is an error, as it is not below
const asserts = source.includes('console.assert(');
const { error } = console;

process.once('beforeExit', () => {
  if (asserts && asserted === 0) error('No console.assert has been reached: is it hidden by another console?');
  else if (finished && failed === 0) writeSync(1, word, 0, length);
});

const program = new Module(path, null);
program.filename = path;
program.paths = Module._nodeModulePaths('/');
process.argv.splice(1, 2, path);
require.main = process.mainModule = program;
program._compile(source, path);
finished = true;
