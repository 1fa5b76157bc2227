//! nginx's configuration as directives: words, blocks, `include`. What they mean is not known here.

use std::{
    fmt, fs,
    iter::Peekable,
    path::{Path, PathBuf},
    rc::Rc,
    str::Chars,
};

/// Beyond these it is no configuration that anybody wrote.
const FILE_BYTES_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 200;
const DEPTH_MAX: usize = 32;

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Rc<str>,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One directive, with what its braces hold if it has some.
#[derive(Debug, Clone)]
pub struct Directive {
    pub name: String,
    pub args: Vec<String>,
    pub block: Vec<Directive>,
    pub place: Place,
}

impl Directive {
    pub fn first(&self) -> &str {
        self.args.first().map_or("", String::as_str)
    }
}

/// Reads a file and all that it includes; the sentence says what is in the way.
pub fn read(path: &Path) -> Result<Vec<Directive>, String> {
    let folder = path.parent().unwrap_or(Path::new(""));
    // nginx looks beside nginx.conf, which is one up from conf.d and sites-enabled.
    let roots = [folder.to_owned(), folder.join("..")];
    Reader { roots, files: 0 }.file(path, 0)
}

/// The same of a text.
#[cfg(test)]
pub fn parse(text: &str) -> Result<Vec<Directive>, String> {
    Reader { roots: Default::default(), files: 0 }.text(text, "file", 0)
}

struct Reader {
    roots: [PathBuf; 2],
    files: usize,
}

impl Reader {
    fn file(&mut self, path: &Path, depth: usize) -> Result<Vec<Directive>, String> {
        let shown = path.display();
        self.files += 1;
        if self.files > FILES_MAX || depth > DEPTH_MAX {
            return Err(format!("{shown} is included once too often: does a file include itself?"));
        }
        let size = fs::metadata(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        if !size.is_file() || size.len() > FILE_BYTES_MAX {
            return Err(format!("{shown} is no file of at most 1 MiB: name the configuration itself"));
        }
        let bytes = fs::read(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{shown} is no text"))?;
        self.text(&text, &shown.to_string(), depth)
    }

    fn text(&mut self, text: &str, name: &str, depth: usize) -> Result<Vec<Directive>, String> {
        let mut words = Words { chars: text.chars().peekable(), file: name.into(), line: 1 };
        self.block(&mut words, depth, true)
    }

    /// Directives up to the closing brace, or the end of the file where that is what ends them.
    fn block(&mut self, words: &mut Words<'_>, depth: usize, is_file: bool) -> Result<Vec<Directive>, String> {
        if depth > DEPTH_MAX {
            return Err(format!("{}: braces are nested too deep", words.place()));
        }
        let mut directives = Vec::new();
        let mut line: Option<Directive> = None;
        loop {
            let word = words.next_word()?;
            match (word, line.take()) {
                (Word::Text(name), None) => {
                    line = Some(Directive { name, args: Vec::new(), block: Vec::new(), place: words.place() });
                }
                (Word::Text(arg), Some(mut begun)) => {
                    begun.args.push(arg);
                    line = Some(begun);
                }
                (Word::End, Some(done)) if done.name == "include" => directives.extend(self.include(&done, depth)?),
                (Word::End, Some(done)) => directives.push(done),
                (Word::Open, Some(mut begun)) => {
                    begun.block = self.block(words, depth + 1, false)?;
                    directives.push(begun);
                }
                (Word::Close, None) if !is_file => return Ok(directives),
                (Word::EndOfFile, None) if is_file => return Ok(directives),
                (Word::EndOfFile, None) => return Err(format!("{}: a closing }} is missing", words.place())),
                (Word::EndOfFile | Word::Close, Some(begun)) => {
                    return Err(format!("{}: {} does not end with ;", begun.place, begun.name));
                }
                (Word::End | Word::Open | Word::Close, None) => {
                    return Err(format!("{}: ;, {{ or }} stands where a directive is expected", words.place()));
                }
            }
        }
    }

    fn include(&mut self, include: &Directive, depth: usize) -> Result<Vec<Directive>, String> {
        let wanted = Path::new(include.first());
        let roots = self.roots.clone();
        let places =
            if wanted.is_absolute() { vec![wanted.to_owned()] } else { roots.map(|root| root.join(wanted)).into() };
        let found = places.iter().map(|place| matching(place)).find(|files| !files.is_empty()).unwrap_or_default();
        // As for nginx, a pattern may match nothing, and a name may not.
        if found.is_empty() && !include.first().contains('*') {
            return Err(format!(
                "{}: include {} is not there; give the file as nginx has it",
                include.place,
                include.first()
            ));
        }
        let read: Result<Vec<_>, _> = found.iter().map(|file| self.file(file, depth + 1)).collect();
        Ok(read?.concat())
    }
}

/// The files that a path means, whose last part may have one `*`.
fn matching(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((before, behind)) = name.split_once('*') else {
        return Some(path.to_owned()).filter(|path| path.exists()).into_iter().collect();
    };
    let is_meant = |file: &PathBuf| {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // The shell's * leaves hidden files alone, and so does nginx.
        name.len() >= before.len() + behind.len()
            && name.starts_with(before)
            && name.ends_with(behind)
            && !name.starts_with('.')
    };
    let entries = path.parent().and_then(|folder| fs::read_dir(folder).ok());
    let mut files: Vec<_> =
        entries.into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_meant).collect();
    files.sort();
    files
}

enum Word {
    Text(String),
    End,
    Open,
    Close,
    EndOfFile,
}

struct Words<'a> {
    chars: Peekable<Chars<'a>>,
    file: Rc<str>,
    line: usize,
}

impl Words<'_> {
    fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line }
    }

    fn next_char(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn next_word(&mut self) -> Result<Word, String> {
        loop {
            let Some(&next) = self.chars.peek() else { return Ok(Word::EndOfFile) };
            if !matches!(next, '"' | '\'') && !matches!(next, ';' | '{' | '}' | '#') && !next.is_whitespace() {
                return Ok(Word::Text(self.bare()));
            }
            self.next_char();
            match next {
                ';' => return Ok(Word::End),
                '{' => return Ok(Word::Open),
                '}' => return Ok(Word::Close),
                '#' => {
                    while self.chars.peek().is_some_and(|c| *c != '\n') {
                        self.next_char();
                    }
                }
                '"' | '\'' => return self.quoted(next),
                _ => {}
            }
        }
    }

    /// Up to a space, `;` or `{`, but for the brace in `${name}`.
    fn bare(&mut self) -> String {
        let mut text = String::new();
        while let Some(&next) = self.chars.peek() {
            let in_name = next == '{' && text.ends_with('$');
            if next.is_whitespace() || next == ';' || (next == '{' && !in_name) {
                break;
            }
            self.next_char();
            if next == '\\' {
                self.escaped(&mut text);
            } else {
                text.push(next);
            }
        }
        text
    }

    fn quoted(&mut self, quote: char) -> Result<Word, String> {
        let (from, mut text) = (self.place(), String::new());
        loop {
            match self.next_char() {
                None => return Err(format!("{from}: a closing {quote} is missing")),
                Some('\\') => self.escaped(&mut text),
                Some(next) if next == quote => return Ok(Word::Text(text)),
                Some(next) => text.push(next),
            }
        }
    }

    /// Only quotes and itself lose their backslash; an expression keeps its own.
    fn escaped(&mut self, text: &mut String) {
        let next = self.next_char();
        if !matches!(next, Some('"' | '\'' | '\\')) {
            text.push('\\');
        }
        text.extend(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_nginx_takes_them_for() {
        let all = parse(
            "# a comment; with { all of it\nmap $a $b { default x; '' ''; }\n\
             log_format l 'a \"$request\" ' \"b;\" # behind\n;\nlocation ~ ^/a\\.b$ { return 200 ${a}b; }\nx a#b;",
        )
        .unwrap();
        let shown: Vec<_> = all.iter().map(|line| (line.name.as_str(), line.args.join("|"), line.place.line)).collect();
        assert_eq!(
            shown,
            [
                ("map", "$a|$b".into(), 2),
                ("log_format", "l|a \"$request\" |b;".into(), 3),
                ("location", "~|^/a\\.b$".to_owned(), 5),
                ("x", "a#b".into(), 6),
            ]
        );
        assert_eq!(all[0].block[1].name, "");
        assert_eq!(all[2].block[0].args, ["200", "${a}b"]);
    }

    #[test]
    fn what_is_no_configuration_is_named_with_its_line() {
        for (text, said) in [
            ("a b", ":1: a does not end with ;"),
            ("a {\nb c }", ":2: b does not end with ;"),
            ("a {\nb;", ": a closing } is missing"),
            ("}", ":1: ;, { or } stands where"),
            ("\n\na 'b;", ":3: a closing ' is missing"),
            ("include /nowhere/at/all;", "include /nowhere/at/all is not there"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        assert!(parse(&"a {".repeat(5000)).unwrap_err().contains("too deep"));
        assert!(parse("include /nowhere/*.conf;").unwrap().is_empty());
        assert!(read(Path::new("/")).unwrap_err().contains("is no file"));
    }
}
