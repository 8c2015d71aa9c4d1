//! A small writer of SVG pictures that are legible on light and on dark pages.
//!
//! A picture brings its own ground and changes with the reader's colour scheme; colours of data
//! are those of a palette that stands out on both grounds.

use std::fmt::{Display, Write as _};

/// Colours of data, told apart by most who see colours less well, in the order of use.
pub const PALETTE: [&str; 8] = [
    "#0a84d0", "#e0691a", "#12a173", "#d2489b", "#b8860b", "#8a6fe0", "#c23b3b", "#7a8794",
];

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}\
.head{font-size:16px;font-weight:600}\
.note{font-size:12px;fill:#59636e}\
.ground{fill:#fff;stroke:#d1d9e0}\
.grid{stroke:#d1d9e0}\
@media (prefers-color-scheme:dark){\
text{fill:#f0f6fc}\
.note{fill:#9198a1}\
.ground{fill:#0d1117;stroke:#3d444d}\
.grid{stroke:#3d444d}}";

/// Where a text stands to its point.
#[derive(Clone, Copy, Debug)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// A picture that is being drawn; lengths are pixels, from the upper left corner.
#[derive(Debug)]
pub struct Picture {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

impl Picture {
    /// An empty picture of that size. Its title is also what is read aloud.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let mut picture = Self {
            width,
            height,
            title: escaped(title),
            body: String::new(),
        };
        picture.text((24.0, 34.0), Anchor::Start, "head", title);
        picture
    }

    /// A text; `class` is `head`, `note` or nothing.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        self.line_of(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{text}</text>"#
        ));
    }

    /// A filled rectangle with what is shown when it is pointed at.
    pub fn bar(&mut self, (x, y): (f64, f64), width: f64, height: f64, colour: &str, hint: &str) {
        let hint = escaped(hint);
        self.line_of(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"><title>{hint}</title></rect>"#
        ));
    }

    /// A line of the grid.
    pub fn grid(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.line_of(format_args!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="grid"/>"#
        ));
    }

    /// A curve through points, each marked.
    pub fn curve(&mut self, points: &[(f64, f64)], colour: &str) {
        let path: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        self.line_of(format_args!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2.5"/>"#,
            path.join(" ")
        ));
        for (x, y) in points {
            self.line_of(format_args!(
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{colour}"/>"#
            ));
        }
    }

    fn line_of(&mut self, line: impl Display) {
        // Writing to a String does not fail.
        let _ = writeln!(self.body, "{line}");
    }

    /// The whole file.
    pub fn finish(self) -> String {
        let Self {
            width,
            height,
            title,
            body,
        } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">\n<title>{title}</title>\n\
             <style>{STYLE}</style>\n<rect class=\"ground\" x=\"0.5\" y=\"0.5\" \
             width=\"{:.0}\" height=\"{:.0}\" rx=\"6\"/>\n{body}</svg>\n",
            width - 1.0,
            height - 1.0
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_whole_and_text_is_escaped() {
        let mut picture = Picture::new(100.0, 50.0, "a < b & c");
        picture.bar((1.0, 2.0), 3.0, 4.0, PALETTE[0], "x > y");
        picture.curve(&[(0.0, 0.0), (1.0, 2.0)], PALETTE[1]);
        let file = picture.finish();
        assert!(file.starts_with("<svg ") && file.ends_with("</svg>\n"));
        assert!(file.contains("<title>a &lt; b &amp; c</title>"));
        assert!(file.contains("<title>x &gt; y</title>"));
        assert_eq!(file.matches("<circle").count(), 2);
        assert!(file.contains("prefers-color-scheme:dark"));
    }
}
