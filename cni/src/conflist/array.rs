//! A list inside JSON text: where its elements lie, so that one can go or come without touching what others wrote. It must not check JSON;
//! who calls has parsed it.

use std::ops::Range;

/// The elements of a list that is a member of the outermost object.
pub(super) struct Array<'a> {
    text: &'a str,
    /// From the byte after `[` to `]`.
    inside: Range<usize>,
    /// Each with the white space before it.
    elements: Vec<Range<usize>>,
}

impl<'a> Array<'a> {
    /// The list of this name; the last, if there are several, as JSON readers have it. None if the text is not what it must be.
    pub(super) fn find(text: &'a str, name: &str) -> Option<Self> {
        let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
        let mut found = None;
        scan.space();
        scan.eat(b'{')?;
        loop {
            scan.space();
            if scan.peek()? == b'}' {
                break;
            }
            let start = scan.at;
            scan.value()?;
            let key: String = serde_json::from_str(text.get(start..scan.at)?).ok()?;
            scan.space();
            scan.eat(b':')?;
            scan.space();
            if key == name && scan.peek()? == b'[' {
                let (inside, elements) = scan.elements()?;
                found = Some(Self { text, inside, elements });
            } else {
                scan.value()?;
            }
            scan.space();
            if scan.peek()? == b',' {
                scan.at += 1;
            }
        }
        found
    }

    pub(super) fn len(&self) -> usize {
        self.elements.len()
    }

    /// The whole text with the elements that are `gone` left out and `more` at the end, which begins on a line as the one before does.
    pub(super) fn rewrite(&self, gone: &[bool], more: Option<&str>) -> String {
        let kept = self.elements.iter().zip(gone).filter(|(_, gone)| !**gone).map(|(e, _)| &self.text[e.clone()]);
        let mut parts: Vec<String> = kept.map(str::to_owned).collect();
        if let Some(more) = more {
            let space = parts
                .last()
                .map_or(String::new(), |last| last.chars().take_while(|c| c.is_ascii_whitespace()).collect());
            parts.push(format!("{space}{more}"));
        }
        let end = self.elements.last().map_or(self.inside.start, |last| last.end);
        let trailing = &self.text[end..self.inside.end];
        let (before, after) = (&self.text[..self.inside.start], &self.text[self.inside.end..]);
        format!("{before}{}{trailing}{after}", parts.join(","))
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Skips a value.
    fn value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' => self.at += 1,
                b if b.is_ascii_whitespace() => self.at += 1,
                _ => self.scalar(),
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.eat(b'"')?;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    fn scalar(&mut self) {
        while self.peek().is_some_and(|b| !matches!(b, b',' | b':' | b'}' | b']') && !b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Steps over a list: what lies inside its brackets, and its elements.
    fn elements(&mut self) -> Option<(Range<usize>, Vec<Range<usize>>)> {
        self.eat(b'[')?;
        let (inside, mut elements) = (self.at, Vec::new());
        loop {
            let start = self.at;
            self.space();
            if self.peek()? != b']' {
                self.value()?;
                elements.push(start..self.at);
                self.space();
            }
            match self.peek()? {
                b',' => self.at += 1,
                _ => {
                    let end = self.at;
                    self.eat(b']')?;
                    return Some((inside..end, elements));
                }
            }
        }
    }
}
