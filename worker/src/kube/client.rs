//! A [`Client`] that connects our way, and neither retries nor waits for ever.
//!
//! kube's own stack of layers tries a refused request again fifteen times; here the engine alone
//! decides about that, so what the server says about waiting is kept in the error.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::kube::client::{Body, Client, ConfigExt};
use ::kube::config::Config;
use ::kube::core::Status;
use http::Response;
use http::header::RETRY_AFTER;
use hyper::body::{Body as _, Incoming};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::ServerName;
use tower::{BoxError, ServiceBuilder, ServiceExt};

use super::connect::Connector;
use super::error::{Busy, KubeError};
use super::kubeconfig::Kubeconfig;
use super::tunnel::{self, Masters, Tunnels, Way};
use crate::engine::JobError;
use crate::net::Dialer;

/// A server that sends nothing for so long is gone. It gives up a request itself after a minute.
const SILENCE: Duration = Duration::from_secs(45);

/// How much of a refusal is read, in bytes.
const LARGEST_REFUSAL: usize = 64 * 1024;

/// A client that goes straight to the server of the kubeconfig.
pub fn direct(config: &Kubeconfig, dialer: Dialer) -> Result<Client, KubeError> {
    let name = config.name_outside();
    let name = name.ok_or_else(|| KubeError::Setting {
        reason: format!("`{}` is no host name or address", config.host()),
    })?;
    let way = Way::Direct {
        dialer,
        host: config.host().to_owned(),
        port: config.port(),
    };
    build(config, way, name)
}

/// A client of the cluster that these masters are of, with the administrator's rights.
pub async fn administrator(masters: Arc<dyn Masters>) -> Result<Client, JobError> {
    let config = tunnel::fetch(masters.as_ref()).await?;
    Ok(through_masters(&config, masters)?)
}

/// A client that asks the API servers on the loopback of the masters.
pub fn through_masters(
    config: &Kubeconfig,
    masters: Arc<dyn Masters>,
) -> Result<Client, KubeError> {
    let way = Way::Tunnel(Tunnels::new(masters, config.port()));
    build(config, way, config.name_on_master())
}

fn build(config: &Kubeconfig, way: Way, name: ServerName<'static>) -> Result<Client, KubeError> {
    let mut connector = TimeoutConnector::new(Connector::new(way, config.tls(), name));
    connector.set_read_timeout(Some(SILENCE));
    connector.set_write_timeout(Some(SILENCE));
    // A connection that waits in the pool is not silent.
    connector.set_reset_reader_on_write(true);
    let http = HttpClient::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let mut settings = Config::new(config.server().clone());
    settings.auth_info.token = config.token().map(|token| token.reveal().to_owned().into());
    let authorization = settings.auth_layer().map_err(KubeError::from)?;
    let service = ServiceBuilder::new()
        .layer(settings.base_uri_layer())
        .option_layer(authorization)
        .service(http.map_err(BoxError::from).and_then(heed));
    Ok(Client::new(service, "default"))
}

/// Turns an answer that says when to come back into an error that says it too: kube keeps only the
/// body of a refusal.
async fn heed(answer: Response<Incoming>) -> Result<Response<Incoming>, BoxError> {
    let (parts, body) = answer.into_parts();
    let busy = parts.status.as_u16() == 429 || parts.status.is_server_error();
    let after = parts.headers.get(RETRY_AFTER);
    let after = after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let Some(after) = after.filter(|_| busy).map(Duration::from_secs) else {
        return Ok(Response::from_parts(parts, body));
    };
    let text = beginning(body).await?;
    let status = serde_json::from_slice::<Status>(&text).map(|status| status.message);
    let message = status.unwrap_or_else(|_| String::from_utf8_lossy(&text).trim().to_owned());
    Err(Box::new(Busy {
        code: parts.status.as_u16(),
        message: message.chars().take(500).collect(),
        after,
    }))
}

/// The beginning of a body.
async fn beginning(mut body: Incoming) -> Result<Vec<u8>, hyper::Error> {
    let mut text = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            text.extend_from_slice(&data);
        }
        if text.len() > LARGEST_REFUSAL {
            break;
        }
    }
    Ok(text)
}
