//! The house as the design draws it, held by tests: which package may know which, where a library
//! may be named, what lies at the top, what the words and links in the files say.

mod crates;
mod lexer;
mod licence;
mod sources;
mod texts;
mod tree;
