//! Settings of a link, common to coordinator and worker.

use crate::args::{self, Time};
use crate::exit::Usage;
use outlast_core::adapt::{Pins, Setting};
use outlast_core::worker::HeartbeatConfig;
use outlast_net::pulse::PingConfig;

#[derive(clap::Args)]
pub(crate) struct Link {
    /// Time between heartbeats
    #[arg(long, value_parser = args::interval, value_name = "TIME", default_value_t = Time::from_ms(HeartbeatConfig::default().interval))]
    pub heartbeat_interval: Time,
    /// Silence after which a link is closed; the worker then reconnects
    #[arg(long, value_parser = args::interval, value_name = "TIME", default_value_t = Time::from_ms(HeartbeatConfig::default().timeout))]
    pub heartbeat_timeout: Time,
    /// Settings that do not adapt to the link: heartbeat, batch, compression, checkpoints,
    /// telemetry; or all. A heartbeat that is given explicitly is pinned [default: none]
    #[arg(long, env = "OUTLAST_PIN", value_name = "WHAT,…")]
    pin: Option<Pins>,
    /// Time between WebSocket pings; 0 sends none
    #[arg(long, value_name = "TIME", default_value_t = Time(PingConfig::default().interval))]
    ws_ping_interval: Time,
    /// Silence after a ping after which a link is closed
    #[arg(long, value_name = "TIME", default_value_t = Time(PingConfig::default().timeout))]
    ws_ping_timeout: Time,
}

impl Link {
    /// Checks the combination of values.
    pub fn check(&self) -> Result<(), Usage> {
        if self.heartbeat_timeout.ms() <= self.heartbeat_interval.ms() {
            return Err(Usage("the heartbeat timeout must be longer than the interval".into()));
        }
        if self.ws_ping_timeout.0.is_zero() && !self.ws_ping_interval.0.is_zero() {
            let text =
                "ws_ping_timeout: 0 would end every link; set the interval to 0 to send no pings";
            return Err(Usage(text.into()));
        }
        Ok(())
    }

    /// Pinned settings, including the heartbeat if that was given.
    pub fn pins(&self, given: bool) -> Pins {
        let pins = self.pin.unwrap_or(Pins::NONE);
        if given { pins.with(Setting::Heartbeat) } else { pins }
    }

    pub fn ping(&self) -> PingConfig {
        PingConfig { interval: self.ws_ping_interval.0, timeout: self.ws_ping_timeout.0 }
    }
}
