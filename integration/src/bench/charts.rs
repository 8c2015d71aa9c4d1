//! The two charts: memory per container as containers grow, and where the milliseconds of one
//! container's life go.

use super::catalogue::number;
use super::life::STEPS;
use super::rig::{BARE, GO, GO_V1, OURS};
use super::samples::Samples;
use super::svg::{Anchor, PALETTE, Picture};

/// Subjects with their names for people, in the order of drawing.
const SUBJECTS: [(&str, &str); 4] = [
    (BARE, "no shim"),
    (OURS, "Wherry"),
    (GO, "Go v2"),
    (GO_V1, "Go v1"),
];

/// Memory of the shim per idle container over the number of containers, both in logarithms; none
/// when it was not measured.
pub fn memory(samples: &Samples) -> Option<String> {
    let levels: Vec<u32> = [1, 10, 50, 100, 500]
        .into_iter()
        .filter(|level| {
            samples
                .median(&format!("scale.pss-{level}"), OURS)
                .is_some()
        })
        .collect();
    let most = f64::from(*levels.last()?);
    let (left, right, top, bottom) = (70.0, 560.0, 80.0, 340.0);
    // Kilobytes at the lower and at the upper edge.
    let (low, high): (f64, f64) = (100.0, 20_000.0);
    let x = |level: f64| left + (right - left) * level.ln() / most.max(2.0).ln();
    let y = |kb: f64| bottom - (bottom - top) * (kb / low).ln() / (high / low).ln();

    let mut picture = Picture::new(720.0, 400.0, "Memory of the shim per idle container");
    let note =
        "pages shared by several shims count by share; median of all shims; both axes logarithmic";
    picture.text((24.0, 54.0), Anchor::Start, "note", note);
    for (kb, text) in [
        (100.0, "0.1 MB"),
        (300.0, "0.3 MB"),
        (1_000.0, "1 MB"),
        (3_000.0, "3 MB"),
        (10_000.0, "10 MB"),
    ] {
        picture.grid((left, y(kb)), (right, y(kb)));
        picture.text((left - 8.0, y(kb) + 4.0), Anchor::End, "note", text);
    }
    for level in &levels {
        let at = (x(f64::from(*level)), bottom + 20.0);
        picture.text(at, Anchor::Middle, "note", &level.to_string());
    }
    let middle = (f64::midpoint(left, right), bottom + 42.0);
    picture.text(middle, Anchor::Middle, "", "idle containers on the machine");
    for (colour, (subject, name)) in PALETTE.iter().zip(&SUBJECTS[1..]) {
        let median = |level: &u32| samples.median(&format!("scale.pss-{level}"), subject);
        let values: Vec<(u32, f64)> = levels
            .iter()
            .filter_map(|l| Some((*l, median(l)?)))
            .collect();
        let points: Vec<_> = values
            .iter()
            .map(|(l, kb)| (x(f64::from(*l)), y(*kb)))
            .collect();
        let (Some(last), Some((_, kb))) = (points.last(), values.last()) else {
            continue;
        };
        picture.curve(&points, colour);
        let text = format!("{name}: {} MB", number(kb / 1e3));
        picture.text((last.0 + 12.0, last.1 + 4.0), Anchor::Start, "", &text);
    }
    Some(picture.finish())
}

/// The medians of the steps of a life, one bar for each subject under each runtime; none when
/// nothing was measured.
pub fn life(samples: &Samples) -> Option<String> {
    let bars: Vec<(&str, &str, &str)> = ["runc", "crun"]
        .into_iter()
        .flat_map(|runtime| SUBJECTS.map(|(subject, name)| (runtime, subject, name)))
        .filter(|(runtime, subject, _)| {
            samples
                .median(&format!("{runtime}.life"), subject)
                .is_some()
        })
        .collect();
    let steps = |runtime: &str, subject: &str| -> Vec<f64> {
        let median = |(step, _): &(&str, &str)| {
            samples
                .median(&format!("{runtime}.{step}"), subject)
                .unwrap_or(0.0)
        };
        STEPS.iter().map(median).collect()
    };
    let total =
        |(runtime, subject, _): &(&str, &str, &str)| steps(runtime, subject).iter().sum::<f64>();
    let longest = bars.iter().map(total).reduce(f64::max)?;
    let (left, right, top, pitch, thick) = (140.0, 640.0, 106.0, 32.0, 22.0);
    let scale = (right - left) / longest;

    #[expect(clippy::cast_precision_loss, reason = "some ten bars")]
    let row = |n: usize| top + pitch * n as f64;
    let mut picture = Picture::new(
        720.0,
        row(bars.len()) + 16.0,
        "One container's life, in milliseconds",
    );
    for (n, (colour, (_, name))) in PALETTE.iter().zip(STEPS).enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "eight steps")]
        let at = (24.0 + (n % 4) as f64 * 170.0, 48.0 + (n / 4) as f64 * 22.0);
        picture.bar(at, 12.0, 12.0, colour, name);
        picture.text((at.0 + 18.0, at.1 + 11.0), Anchor::Start, "", name);
    }
    for (n, bar) in bars.iter().enumerate() {
        let (runtime, subject, name) = bar;
        let y = row(n);
        let label = format!("{runtime}, {name}");
        picture.text((left - 10.0, y + 16.0), Anchor::End, "", &label);
        let mut x = left;
        for ((colour, (_, step)), ms) in PALETTE.iter().zip(STEPS).zip(steps(runtime, subject)) {
            let hint = format!("{label}: {step} {} ms", number(ms));
            picture.bar((x, y), ms * scale, thick, colour, &hint);
            x += ms * scale;
        }
        let sum = format!("{} ms", number(total(bar)));
        picture.text((x + 8.0, y + 16.0), Anchor::Start, "", &sum);
    }
    Some(picture.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_show_what_was_measured() {
        let mut samples = Samples::default();
        assert!(memory(&samples).is_none() && life(&samples).is_none());
        for (level, kb) in [(1, 2_400.0), (10, 440.0), (500, 250.0)] {
            samples.push(&format!("scale.pss-{level}"), OURS, kb);
            samples.push(&format!("scale.pss-{level}"), GO, 10.0 * kb);
        }
        let chart = memory(&samples).unwrap();
        assert!(chart.contains("Wherry: 0.25 MB") && chart.contains("Go v2: 2.50 MB"));
        assert!(!chart.contains("Go v1"));
        assert_eq!(chart.matches("<circle").count(), 6);

        samples.push("runc.life", OURS, 100.0);
        samples.push("runc.create", OURS, 60.0);
        samples.push("runc.delete", OURS, 41.5);
        let chart = life(&samples).unwrap();
        assert!(
            chart.contains("runc, Wherry") && chart.contains(">102 ms<"),
            "{chart}"
        );
        assert!(!chart.contains("crun"));
    }
}
