//! The incident on one sheet: a column for each guard, with the article's curves one below the other: memory, reads,
//! gets on an empty pool and processor time, and below them the light queries.

use super::Run;
use super::report::{cpu, on_empty, reads};
use super::target::Target;
use crate::Result;
use crate::pace::Sample;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

const BLUE_INK: RGBColor = RGBColor(30, 110, 190);
const RED_INK: RGBColor = RGBColor(200, 50, 50);
const GREY: RGBColor = RGBColor(150, 150, 150);
/// Where failures are drawn, above all latencies (10 s at most, by the timeout of the clients).
const FAILED_MS: f64 = 30_000.0;
const MIB: f64 = (1_u64 << 20) as f64;
const WIDTH: u32 = 460;
const HEIGHT: u32 = 210;
/// Dots of light queries in one picture, so that the file stays small.
const DOTS: usize = 700;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Points = Vec<(f64, f64)>;

/// One picture: its title and its lines.
struct Picture {
    title: String,
    lines: Vec<(RGBColor, Points)>,
    /// A line at this height.
    limit: Option<f64>,
}

pub(super) fn draw(path: &Path, target: &Target, runs: &[Run], limit: u64) -> Result<()> {
    let rows: Vec<Vec<Picture>> = runs.iter().map(|run| pictures(target, run, limit)).collect();
    let count = rows.first().map_or(0, Vec::len);
    let tops: Vec<f64> = (0..count).map(|row| top(&rows, row)).collect();
    let size = (WIDTH * runs.len() as u32, HEIGHT * (count as u32 + 1));
    let sheet = SVGBackend::new(path, size).into_drawing_area();
    sheet.fill(&WHITE)?;
    let areas = sheet.split_evenly((count + 1, runs.len()));
    for (column, (run, pictures)) in runs.iter().zip(&rows).enumerate() {
        let end = run.light.iter().map(|s| s.at).fold(1.0, f64::max);
        for (row, (picture, top)) in pictures.iter().zip(&tops).enumerate() {
            if let Some(area) = areas.get(row * runs.len() + column) {
                lines(area, picture, end, *top, run)?;
            }
        }
        if let Some(area) = areas.get(count * runs.len() + column) {
            dots(area, run, end)?;
        }
    }
    sheet.present()?;
    Ok(())
}

fn pictures(target: &Target, run: &Run, limit: u64) -> Vec<Picture> {
    let rss = run.watched.rss.iter().step_by(20).map(|&(at, bytes)| (at, bytes as f64 / MIB)).collect();
    let [user, system] = cpu(run);
    let mut pictures = vec![
        Picture {
            title: format!("{}: resident memory, MiB", title(run)),
            lines: vec![(BLUE_INK, rss)],
            limit: Some(limit as f64 / MIB),
        },
        Picture { title: target.reads().to_owned(), lines: vec![(BLUE_INK, reads(run))], limit: None },
    ];
    if target.counters().1.is_some() {
        let title = "gets on an empty pool per second".to_owned();
        pictures.push(Picture { title, lines: vec![(BLUE_INK, on_empty(run))], limit: None });
    }
    let title = "cores in use: user (blue), system (red)".to_owned();
    pictures.push(Picture { title, lines: vec![(BLUE_INK, user), (RED_INK, system)], limit: None });
    pictures
}

fn title(run: &Run) -> String {
    match run.guard.split_once(':').unwrap_or((&run.guard, "4")) {
        ("none", _) => "no guard".to_owned(),
        ("unbounded", _) => "no guard, unbounded pools".to_owned(),
        ("weir", "4" | "all") => "Weir".to_owned(),
        ("weir", limit) => format!("Weir, {limit}"),
        (cap, slots) => format!("{cap}, {slots} at once"),
    }
}

/// The height of a row of pictures.
fn top(rows: &[Vec<Picture>], row: usize) -> f64 {
    let pictures = rows.iter().filter_map(|pictures| pictures.get(row));
    let highest =
        |p: &Picture| p.lines.iter().flat_map(|l| &l.1).map(|p| p.1).chain(p.limit).fold(0.0, f64::max);
    pictures.map(highest).fold(1e-9, f64::max) * 1.1
}

fn lines(area: &Area<'_>, picture: &Picture, end: f64, top: f64, run: &Run) -> Result<()> {
    let mut chart = ChartBuilder::on(area)
        .caption(&picture.title, ("sans-serif", 14))
        .margin(6)
        .x_label_area_size(18)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(5)
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    chart.draw_series(LineSeries::new([(run.burst.0, 0.0), (run.burst.0, top)], GREY))?;
    if let Some(limit) = picture.limit {
        chart.draw_series(LineSeries::new([(0.0, limit), (end, limit)], BLACK))?;
    }
    for (colour, points) in &picture.lines {
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
        if let (Some(_), Some(last)) = (run.watched.died, points.last()) {
            chart.draw_series([Cross::new(*last, 6, RED_INK.stroke_width(3))])?;
        }
    }
    Ok(())
}

fn dots(area: &Area<'_>, run: &Run, end: f64) -> Result<()> {
    let mut chart = ChartBuilder::on(area)
        .caption("light queries, ms; red and on top: failed", ("sans-serif", 14))
        .margin(6)
        .x_label_area_size(18)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..end, (0.5..FAILED_MS * 1.5).log_scale())?;
    chart.configure_mesh().light_line_style(TRANSPARENT).y_labels(6).draw()?;
    let (good, bad): (Vec<Sample>, Vec<Sample>) = run.light.iter().partition(|s| s.status == 200);
    let thin = |count: usize| count.div_ceil(DOTS).max(1);
    let good = good.iter().step_by(thin(good.len())).map(|s| (s.at, s.ms.max(0.5)));
    chart.draw_series(good.map(|dot| Circle::new(dot, 1, BLUE_INK.filled())))?;
    let bad = bad.iter().step_by(thin(bad.len())).map(|s| (s.at, FAILED_MS));
    chart.draw_series(bad.map(|dot| Circle::new(dot, 2, RED_INK.filled())))?;
    Ok(())
}

/// A number for an axis: `1.5M` rather than `1500000.0`.
fn short(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e4 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let text = format!("{scaled:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}
