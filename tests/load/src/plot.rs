//! The plot: a bar for each subject, made of its parts; as SVG with a background of its own, so that it can be read on a
//! dark page too.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::results::{Cost, Results};
use crate::subjects::{Part, Subject};

const WIDTH: u32 = 820;
const BAR_HEIGHT: u32 = 34;
const FRAME_HEIGHT: u32 = 110;
const FONT: &str = "sans-serif";
/// Told apart also by those who see few colours (Okabe and Ito).
const COLOURS: [RGBColor; Part::ALL.len()] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];
/// A bar longer than so many echoes is cut, or no other could be read.
const ECHOES_MAX: f64 = 20.0;
/// From the end of its bar, as a part of the axis.
const NUMBER_AWAY: f64 = 0.006;

pub fn plot(results: &Results) -> Result<String> {
    let mut text = String::new();
    draw(&mut text, results).map_err(|error| anyhow!("the plot cannot be drawn: {error}"))?;
    text.push('\n');
    Ok(text)
}

fn draw(text: &mut String, results: &Results) -> Result<(), Box<dyn std::error::Error>> {
    let subjects: Vec<Subject> = results.subjects().collect();
    let totals: Vec<f64> = subjects.iter().map(|subject| results.spread(*subject, Cost::total).median).collect();
    let least = totals.iter().copied().fold(f64::INFINITY, f64::min);
    let end = 1.12 * totals.iter().copied().filter(|it| *it < least * ECHOES_MAX).fold(least, f64::max);
    let bars = u32::try_from(subjects.len())?;
    let sheet = SVGBackend::with_string(text, (WIDTH, FRAME_HEIGHT + BAR_HEIGHT * bars)).into_drawing_area();
    sheet.fill(&WHITE)?;
    let mut builder = ChartBuilder::on(&sheet);
    builder.caption("CPU time of a turn, all processes together", (FONT, 19)).margin(14).margin_right(28);
    builder.x_label_area_size(46).y_label_area_size(190);
    // From the top, as in the table.
    let mut chart = builder.build_cartesian_2d(0.0..end, (0..bars.cast_signed() - 1).into_segmented())?;
    let row = |place: usize| bars.cast_signed() - 1 - place as i32;
    let name = |at: &SegmentValue<i32>| match at {
        SegmentValue::Exact(at) | SegmentValue::CenterOf(at) => usize::try_from(row(usize::try_from(*at).unwrap_or(0)))
            .ok()
            .and_then(|place| subjects.get(place))
            .map_or_else(String::new, |subject| subject.title().to_owned()),
        SegmentValue::Last => String::new(),
    };
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(WHITE).bold_line_style(RGBColor(225, 225, 225)).disable_y_mesh();
    mesh.axis_desc_style((FONT, 15)).label_style((FONT, 14)).x_desc("µs").y_labels(subjects.len());
    mesh.x_label_formatter(&|micros| format!("{micros:.0}")).y_label_formatter(&name).draw()?;
    for (part, colour) in Part::ALL.into_iter().zip(COLOURS) {
        let bars = subjects.iter().enumerate().map(|(place, subject)| {
            let from: f64 = Part::ALL.iter().take(part as usize).map(|part| micros(results, *subject, *part)).sum();
            let to = from + micros(results, *subject, part);
            let corners =
                [(from.min(end), SegmentValue::Exact(row(place))), (to.min(end), SegmentValue::Exact(row(place) + 1))];
            let mut bar = Rectangle::new(corners, colour.filled());
            bar.set_margin(5, 5, 0, 0);
            bar
        });
        chart
            .draw_series(bars)?
            .label(part.title())
            .legend(move |(x, y)| Rectangle::new([(x, y - 6), (x + 12, y + 6)], colour.filled()));
    }
    let numbers = subjects.iter().zip(&totals).enumerate().map(|(place, (subject, total))| {
        // The medians of the parts may be more, together, than that of the whole.
        let parts: f64 = Part::ALL.iter().map(|part| micros(results, *subject, *part)).sum();
        let cut = *total > end;
        let (side, colour) = if cut { (HPos::Right, &WHITE) } else { (HPos::Left, &BLACK) };
        let style = (FONT, 14).into_text_style(&sheet).color(colour).pos(Pos::new(side, VPos::Center));
        let number = if cut { format!("{total:.0} →\u{a0}") } else { format!("\u{a0}{total:.0}") };
        Text::new(number, ((total.max(parts) + end * NUMBER_AWAY).min(end), SegmentValue::CenterOf(row(place))), style)
    });
    chart.draw_series(numbers)?;
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::UpperRight).label_font((FONT, 14));
    legend.background_style(WHITE.mix(0.9)).border_style(RGBColor(200, 200, 200)).draw()?;
    sheet.present()?;
    Ok(())
}

fn micros(results: &Results, subject: Subject, part: Part) -> f64 {
    results.spread(subject, |cost| cost.of(part)).median
}
