//! The plots, as SVG with a background of their own, so that they can be read on a dark page too.

use anyhow::{Result, anyhow};
use klatch_actors::membership::decide::BEAT_EVERY_MS;
use klatch_actors::membership::view::FULLEST_PERCENT;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::bounds::{SHARD_COUNTS, UNBOUNDED};
use crate::mesh::mesh;
use crate::recovery::{Loss, Outcome};
use crate::results::{CELL_NODES, Results, WHOLE_NODES};

const SIZE: (u32, u32) = (760, 420);
const FONT: &str = "sans-serif";
/// Told apart also by those who see few colours (Okabe and Ito).
const COLOURS: [RGBColor; 5] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167), RGBColor(86, 86, 86)];

type Sheet<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
    /// Points alone: what was simulated beside what was computed.
    dots: bool,
}

/// Name and text of each file.
pub fn plots(results: &Results) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("balance.svg", drawn(|sheet| balance(sheet, results))?),
        ("beats.svg", drawn(|sheet| beats(sheet, results))?),
        ("recovery.svg", drawn(|sheet| recovery(sheet, results))?),
        ("claims.svg", drawn(|sheet| claims(sheet, results))?),
    ])
}

fn drawn(draw: impl FnOnce(&Sheet) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let sheet = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        sheet.fill(&WHITE).map_err(failed)?;
        draw(&sheet)?;
        sheet.present().map_err(failed)?;
    }
    text.push('\n');
    Ok(text)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("a plot cannot be drawn: {error}")
}

fn balance(sheet: &Sheet, results: &Results) -> Result<()> {
    let kinds = [UNBOUNDED, FULLEST_PERCENT].into_iter().flat_map(|bound| SHARD_COUNTS.map(|shards| (shards, bound)));
    let curves = kinds.map(|(shards, bound)| Curve {
        name: format!("{shards} shards{}", if bound == UNBOUNDED { ", no bound" } else { "" }),
        points: results
            .bounds
            .iter()
            .filter(|it| (it.shards, it.fullest_percent) == (shards, bound))
            .map(|it| (it.nodes as f64, it.owned.max_over_mean()))
            .collect(),
        dots: false,
    });
    let caption = "Shards of the fullest node, as a multiple of the mean";
    let mut chart = builder(sheet, caption)
        .build_cartesian_2d(
            (10.0..1_000.0f64).log_scale().with_key_points(vec![10.0, 30.0, 100.0, 300.0, 1_000.0]),
            1.0..6.5,
        )
        .map_err(failed)?;
    axes(
        &mut chart,
        "nodes (log)",
        "fullest node / mean",
        |nodes| format!("{nodes:.0}"),
        |ratio| format!("{ratio:.0}"),
    )?;
    curves_of(&mut chart, curves.collect(), SeriesLabelPosition::UpperLeft)
}

fn beats(sheet: &Sheet, results: &Results) -> Result<()> {
    let sizes = [10, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000];
    let percent = |share: f64| 100.0 * share;
    let one = sizes.map(|nodes| (nodes as f64, percent(mesh(nodes).beats_of_primary)));
    let cells = sizes.map(|nodes| (nodes as f64, percent(mesh(nodes.min(CELL_NODES)).beats_of_primary)));
    let per_change = sizes.map(|nodes| (nodes as f64, percent(mesh(nodes).change_ms / BEAT_EVERY_MS as f64)));
    let curves = vec![
        Curve { name: "beats of one cluster".into(), points: one.into(), dots: false },
        Curve { name: "beats of a cell of at most 100".into(), points: cells.into(), dots: false },
        Curve { name: "4 views a second, read by all (a large loss)".into(), points: per_change.into(), dots: false },
        Curve { name: "all that it can do".into(), points: vec![(10.0, 100.0), (1_000.0, 100.0)], dots: false },
        Curve {
            name: "simulated: all its work before a loss".into(),
            points: results
                .outcomes
                .iter()
                .filter(|outcome| outcome.scenario.loss == Loss::ThirdVanished)
                .map(|outcome| (outcome.scenario.nodes as f64, percent(outcome.table_before)))
                .collect(),
            dots: true,
        },
    ];
    let mut chart = builder(sheet, "Work of the one Redis primary that holds the table of nodes")
        .build_cartesian_2d(
            (10.0..1_000.0f64).log_scale().with_key_points(vec![10.0, 30.0, 100.0, 300.0, 1_000.0]),
            (0.01..1_000.0f64).log_scale().with_key_points(vec![0.01, 0.1, 1.0, 10.0, 100.0, 1_000.0]),
        )
        .map_err(failed)?;
    axes(&mut chart, "nodes (log)", "% of its time (log)", |nodes| format!("{nodes:.0}"), |share| format!("{share}"))?;
    curves_of(&mut chart, curves, SeriesLabelPosition::LowerRight)
}

fn recovery(sheet: &Sheet, results: &Results) -> Result<()> {
    let thirds = results.outcomes.iter().filter(|outcome| outcome.scenario.loss == Loss::ThirdVanished);
    let curves = thirds.map(|outcome| Curve {
        name: format!("{} nodes, {} lost", outcome.scenario.nodes, outcome.lost),
        points: points(outcome, |[_, recovered, _]| 100.0 * recovered as f64 / outcome.open_turns as f64),
        dots: false,
    });
    let mut chart = builder(sheet, "A third of the nodes vanishes: open turns that go on")
        .build_cartesian_2d(
            (2.0..500.0f64).log_scale().with_key_points(vec![2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]),
            0.0..100.0,
        )
        .map_err(failed)?;
    axes(
        &mut chart,
        "seconds since the loss (log)",
        "% of open turns",
        |secs| format!("{secs:.0}"),
        |y| format!("{y:.0}"),
    )?;
    curves_of(&mut chart, curves.collect(), SeriesLabelPosition::LowerRight)
}

fn claims(sheet: &Sheet, results: &Results) -> Result<()> {
    let third = |nodes: usize| results.outcome(nodes, Loss::ThirdVanished);
    let curves = [CELL_NODES, 300, WHOLE_NODES].into_iter().filter_map(third).map(|outcome| {
        let nodes = outcome.scenario.nodes;
        // A second at a time: a tenth is too restless to be seen.
        let seconds = outcome.series.chunks_exact(10).enumerate();
        let point = |(second, of): (usize, &[[usize; 3]])| {
            (second as f64 + 0.5, of.iter().map(|[_, _, claims]| *claims as f64).sum::<f64>() / nodes as f64)
        };
        Curve {
            name: format!("{nodes} nodes, {} lost", outcome.lost),
            points: seconds.map(point).collect(),
            dots: false,
        }
    });
    let curves: Vec<Curve> = curves.collect();
    let most = curves.iter().flat_map(|curve| &curve.points).map(|(_, claims)| *claims).fold(1.0, f64::max);
    let mut chart = builder(sheet, "A third of the nodes vanishes: claims")
        .build_cartesian_2d(0.0..180.0, 0.0..(most * 1.1).ceil())
        .map_err(failed)?;
    axes(
        &mut chart,
        "seconds since the loss",
        "claims/s for each node of the cluster",
        |x| format!("{x:.0}"),
        |y| format!("{y:.0}"),
    )?;
    curves_of(&mut chart, curves, SeriesLabelPosition::UpperRight)
}

fn points(outcome: &Outcome, of: impl Fn([usize; 3]) -> f64) -> Vec<(f64, f64)> {
    let at = |tenth: usize| (tenth as f64 + 1.0) / 10.0;
    let all = outcome.series.iter().enumerate().map(|(tenth, seen)| (at(tenth), of(*seen)));
    let last = outcome.series.last().map(|seen| (500.0, of(*seen)));
    all.filter(|(secs, _)| *secs >= 2.0).chain(last).collect()
}

fn builder<'a, 'b>(sheet: &'a Sheet<'b>, caption: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(sheet);
    builder.caption(caption, (FONT, 19)).margin(14).margin_right(28).x_label_area_size(46).y_label_area_size(62);
    builder
}

fn axes<X, Y>(
    chart: &mut Chart<X, Y>,
    x: &str,
    y: &str,
    x_label: impl Fn(&f64) -> String,
    y_label: impl Fn(&f64) -> String,
) -> Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .axis_desc_style((FONT, 15))
        .label_style((FONT, 14))
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&x_label)
        .y_label_formatter(&y_label)
        .draw()
        .map_err(failed)
}

fn curves_of<'a, 'b: 'a, X, Y>(
    chart: &mut Chart<'a, 'b, X, Y>,
    curves: Vec<Curve>,
    legend: SeriesLabelPosition,
) -> Result<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    for (curve, colour) in curves.into_iter().zip(COLOURS) {
        let Curve { name, points, dots } = curve;
        let drawn = if dots {
            chart.draw_series(points.into_iter().map(|point| Circle::new(point, 4, colour.filled())))
        } else {
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))
        };
        let sample = move |(x, y)| match dots {
            true => Circle::new((x + 9, y), 4, colour.filled()).into_dyn(),
            false => PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2)).into_dyn(),
        };
        drawn.map_err(failed)?.label(name).legend(sample);
    }
    chart
        .configure_series_labels()
        .position(legend)
        .margin(12)
        .legend_area_size(26)
        .background_style(WHITE.mix(0.9))
        .border_style(RGBColor(200, 200, 200))
        .label_font((FONT, 14))
        .draw()
        .map_err(failed)
}
