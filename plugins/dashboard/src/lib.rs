//! `dashboard`: a live page about the run, only on this machine unless `bind` says otherwise.
//!
//! When training starts, it prints an address with a token (without the one of `token_file`). The page shows growing curves, progress and the time left,
//! what each plugin costs, the console, the model and the best values, and can stop the run and set the learning rate.
//! One thread serves all pages; hooks and thread share a board (`board.rs`), which each of them copies from and to. The
//! page ends with the run. Prometheus reads the same board at `/metrics`.

mod board;
mod exposition;
mod feed;
mod names;
mod server;
mod site;
mod token;

use std::io::ErrorKind as Io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chart::{Facts, Progress, STEP_LOSS};
use monitor::ConfusionMatrix;
use plugin_api::event::{ArtifactPublished, At, Evaluation, Failed, Position, RecordPut, Stopping, TrainEnd};
use plugin_api::{Callback, Creation, Error, ErrorKind, Kind, Result, Run, plugin};

use crate::board::{Board, Shown, WantedRate};
use crate::names::Names;
use crate::server::Server;
use crate::site::Site;
use crate::token::Token;

/// Options of `dashboard`.
#[plugin]
pub struct Options {
    /// The IP address to listen on: one of this machine's, or `0.0.0.0` or `::` for all of them. With another than a
    /// loopback address, other machines can open the page, too; it still needs the token, but everything, the token
    /// included, crosses the network unencrypted.
    pub bind: String,
    /// The port; 0 for a free one.
    pub port: u16,
    /// The file that contains only the token: at least 16 visible ASCII characters. Relative to the folder that the host
    /// was started in. No other user may have access to it (`chmod 600`). If not given, each run has a new random token.
    pub token_file: Option<String>,
    /// Seconds between two updates of the training's values.
    #[schemars(range(min = 0.1, max = 3600.0))]
    pub every: f64,
    /// How many pages may be open at once.
    #[schemars(range(min = 1, max = 100))]
    pub pages: u32,
    /// Seconds for which the page can still be opened after the run; the process ends that much later.
    #[schemars(range(min = 0.0, max = 86400.0))]
    pub linger: f64,
    /// Metrics to show; `*` stands for any characters.
    pub include: Vec<String>,
    /// Metrics not to show, of those; `*` stands for any characters.
    pub exclude: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1".to_owned(),
            port: 0,
            token_file: None,
            every: 0.5,
            pages: 8,
            linger: 0.0,
            include: vec!["*".to_owned()],
            exclude: vec!["step_seconds".to_owned(), "data_wait_seconds".to_owned()],
        }
    }
}

/// Serves a live page about the run.
pub struct Dashboard {
    options: Options,
    bind: IpAddr,
    /// The one of `token_file`.
    token: Option<Token>,
    board: Arc<Board>,
    /// Opened in `setup`, so that a port that is in use is reported before the training.
    listener: Option<TcpListener>,
    server: Option<Server>,
    started: Instant,
    first_step: u64,
    total_steps: u64,
    /// The time of the last update, and its step.
    looked: (Instant, u64),
}

#[plugin]
impl Callback for Dashboard {
    const KIND: &'static str = "dashboard";
    const SUMMARY: &'static str = "Serves a live page about the run on this machine";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let seconds = |name: &str, value: f64, least: f64, most: f64| {
            let message = || Error::new(format!("`{name}` is {value}, which is not from {least} to {most} seconds"));
            (least..=most).contains(&value).then_some(()).ok_or_else(message)
        };
        seconds("every", options.every, 0.1, 3600.0)?;
        seconds("linger", options.linger, 0.0, 86400.0)?;
        if !(1..=100).contains(&options.pages) {
            return Err(Error::new(format!("`pages` is {}, which is not from 1 to 100", options.pages)));
        }
        let bind = options.bind.parse::<IpAddr>().map_err(|_| {
            Error::new(format!(
                "`bind` is `{}`, which is not an IP address; use `127.0.0.1` for this machine alone, another address of \
                 this machine, or `0.0.0.0` or `::` for all of its addresses",
                options.bind
            ))
        })?;
        let token = options.token_file.as_deref().map(Token::from_file).transpose()?;
        let now = Instant::now();
        Ok(Self {
            options,
            bind: bind.to_canonical(),
            token,
            board: Arc::default(),
            listener: None,
            server: None,
            started: now,
            first_step: 0,
            total_steps: 0,
            looked: (now, 0),
        })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        // A trial publishes nothing, and ends before anyone could look.
        if !run.info()?.trial {
            let (bind, port) = (self.bind, self.options.port);
            let listener = TcpListener::bind((bind, port)).map_err(|error| {
                let advice = match error.kind() {
                    Io::AddrInUse | Io::PermissionDenied => "0 uses a free one",
                    _ => "`bind` must be an address of this machine",
                };
                Error::from(error).context(format!("cannot listen on port {port} of {bind} ({advice})"))
            })?;
            self.listener = Some(listener);
        }
        Ok(())
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let facts = Facts::read(run)?;
        (self.started, self.first_step, self.total_steps) = (Instant::now(), event.global_step, facts.total_steps);
        self.looked = (self.started, event.global_step);
        {
            let mut shown = self.board.shown();
            shown.facts = facts;
            shown.progress = Progress::running(event);
        }
        self.read_history(run)?;
        self.look_around(run)?;
        let token = self.token.take().map_or_else(Token::new, Ok)?;
        // Whoever wrote the file knows the token, and the console is kept in the run folder.
        let query = if token.is_from_file() { String::new() } else { format!("?token={}", token.text()) };
        let (names, address) = (Names::new(self.bind), listener.local_addr()?);
        let port = address.port();
        let (here, is_local) = (SocketAddr::new(names.here(), port), names.is_local());
        let elsewhere = names.own().map(|name| format!("dashboard, from other machines: http://{name}:{port}/{query}"));
        let site = Site::new(Arc::clone(&self.board), run.remote()?, names, token, &Token::new()?)?;
        self.server = Some(Server::start(listener, site, self.options.pages)?);
        if !is_local {
            // A warning is shown on the console and kept in the log.
            plugin_api::tracing::warn!(
                "the dashboard listens on {address}: the page and its token go over plain HTTP to whoever can reach that \
                 address, and can be read on the way; put a reverse proxy with TLS before it, or leave `bind` out and \
                 forward the port with `ssh -L {port}:localhost:{port} MACHINE`"
            );
        }
        run.console_line(&format!("dashboard: http://{here}/{query}"))?;
        elsewhere.map_or(Ok(()), |line| run.console_line(&line))
    }

    #[inline]
    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if self.server.is_none() {
            return Ok(());
        }
        if let Some(wanted) = self.board.take_wanted_rate() {
            self.set_rate(run, &wanted)?;
        }
        if self.looked.0.elapsed().as_secs_f64() < self.options.every {
            return Ok(());
        }
        self.look(run, event)
    }

    fn on_epoch_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.board.shown().progress.doing = "training".to_owned();
        // By now there is also what later callbacks put at the end of the previous epoch.
        if event.global_step > self.first_step { self.measured(run, event, "") } else { Ok(()) }
    }

    fn on_eval_start(&mut self, _: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        self.board.shown().progress.doing = format!("evaluating {}", event.split);
        Ok(())
    }

    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        self.board.shown().progress.doing = "training".to_owned();
        self.measured(run, event, &format!("{}_", event.split))
    }

    fn on_record(&mut self, _: &mut Run<'_>, event: &RecordPut<'_>) -> Result<()> {
        if let Some(value) = event.scalar
            && self.shows(&event.name)
        {
            self.board.shown().curves.push(&event.name, event.global_step, value);
        }
        Ok(())
    }

    fn on_artifact(&mut self, _: &mut Run<'_>, event: &ArtifactPublished<'_>) -> Result<()> {
        self.board.shown().artifacts.add(event);
        Ok(())
    }

    fn on_error(&mut self, _: &mut Run<'_>, event: &Failed<'_>) -> Result<()> {
        self.board.shown().progress.failed(event);
        Ok(())
    }

    fn on_stopping(&mut self, _: &mut Run<'_>, event: &Stopping<'_>) -> Result<()> {
        let mut shown = self.board.shown();
        shown.progress.doing = "stopping".to_owned();
        shown.progress.because(&event.reason);
        Ok(())
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, event: &TrainEnd<'_>) -> Result<()> {
        self.measured(run, event, "")?;
        self.look_around(run)?;
        let mut shown = self.board.shown();
        self.advance(&mut shown, event);
        shown.progress.time_left = None;
        shown.progress.because(&event.reason);
        shown.progress.state = event.outcome.name().to_owned();
        Ok(())
    }

    fn on_teardown(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        if self.server.is_some() && self.options.linger > 0.0 {
            run.console_line(&format!("the dashboard stays open for {} s", self.options.linger))?;
            std::thread::sleep(Duration::from_secs_f64(self.options.linger));
        }
        self.server = None;
        Ok(())
    }
}

impl Dashboard {
    fn shows(&self, name: &str) -> bool {
        monitor::selected(&self.options.include, &self.options.exclude, name)
    }

    /// The values from before this process.
    fn read_history(&self, run: &Run<'_>) -> Result<()> {
        for name in run.history_names()?.iter().filter(|name| self.shows(name)) {
            // A series of arrays, such as a confusion matrix, has no curve.
            let Ok(points) = run.history(name) else { continue };
            let mut shown = self.board.shown();
            for point in points {
                shown.curves.push(name, point.global_step, point.value);
            }
        }
        Ok(())
    }

    /// Updates the values that change with each step, between two steps.
    fn look(&mut self, run: &Run<'_>, position: &Position) -> Result<()> {
        let (then, last) = std::mem::replace(&mut self.looked, (Instant::now(), position.global_step));
        let steps = position.global_step.saturating_sub(last) as f64;
        let metrics = run.metrics()?;
        let loss = run.loss().ok();
        {
            let mut shown = self.board.shown();
            for (name, value) in &metrics {
                if changes_with_each_step(name) && self.shows(name) {
                    shown.curves.push(name, position.global_step, *value);
                }
            }
            if let Some(loss) = loss.filter(|_| self.shows("train_loss")) {
                shown.curves.push(STEP_LOSS, position.global_step, loss);
            }
            self.advance(&mut shown, position);
            let rate = steps / then.elapsed().as_secs_f64().max(1e-9);
            // Smoothed, so that a long evaluation does not count as the speed.
            shown.progress.rate = Some(shown.progress.rate.map_or(rate, |before| 0.7 * before + 0.3 * rate));
        }
        self.look_around(run)
    }

    /// Updates the position of the run.
    fn advance(&self, shown: &mut Shown, position: &Position) {
        shown.progress.at(position);
        shown.progress.elapsed = self.started.elapsed().as_secs_f64();
        shown.progress.estimate(self.first_step, self.total_steps, self.started.elapsed());
    }

    /// Updates what does not belong to a step: hyper-parameters, costs, the console. A host that is too old for one of
    /// them is no error.
    fn look_around(&self, run: &Run<'_>) -> Result<()> {
        let groups = run.hyper_parameters()?;
        let times = chart::times(run)?;
        let last = self.board.shown().last_line();
        let lines = run.console_lines(last).or_else(|error| match error.kind() {
            ErrorKind::Unknown => Ok(Vec::new()),
            _ => Err(error),
        })?;
        let mut shown = self.board.shown();
        (shown.groups, shown.times) = (groups, times);
        shown.add_lines(lines);
        Ok(())
    }

    /// Adds the metrics whose names start with `prefix`: those of an evaluation, or all at the end of an epoch.
    fn measured(&self, run: &Run<'_>, position: &Position, prefix: &str) -> Result<()> {
        let metrics = run.metrics()?;
        let mut matrices = ConfusionMatrix::latest(run)?;
        matrices.retain(|matrix| self.shows(&matrix.name));
        let mut shown = self.board.shown();
        shown.matrices = matrices;
        self.advance(&mut shown, position);
        for (name, &value) in metrics.iter().filter(|(name, _)| name.starts_with(prefix) && self.shows(name)) {
            // At the end of an epoch, a metric without a new measurement is the same to the last bit. Training metrics
            // always have a new one.
            let before = shown.curves.last(name).map(|(_, value)| value.to_bits());
            let is_new = !prefix.is_empty() || name.starts_with("train_") || changes_with_each_step(name);
            if is_new || before != Some(value.to_bits()) {
                shown.curves.push(name, position.global_step, value);
            }
        }
        Ok(())
    }

    /// Sets the requested learning rate. If the host rejects it, the page shows that, and nothing ends.
    fn set_rate(&self, run: &mut Run<'_>, wanted: &WantedRate) -> Result<()> {
        let message = match run.set_hyper_parameter(wanted.group.as_deref(), "learning_rate", wanted.value) {
            Ok(()) => format!("the learning rate is {} from now on, regardless of the schedule", wanted.value),
            Err(error) => format!("the learning rate stays as it is: {error}"),
        };
        self.board.shown().notify(message.clone());
        run.console_line(&format!("dashboard: {message}"))
    }
}

/// Metrics with a value at each step, which the page shows at each update.
fn changes_with_each_step(name: &str) -> bool {
    name.starts_with("learning_rate") || matches!(name, "gradient_norm" | "loss_scale")
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Dashboard>()];

#[cfg(test)]
mod tests;
