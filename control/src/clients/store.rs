//! The object store: files go in whole and come out as a stream.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use bytes::Bytes;
use futures::Stream;
use tokio::time::timeout;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the store may take to answer, and between two pieces of an object.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one request may take, the upload of a long file included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(600);
/// How often a request is sent; all requests here may be repeated.
const ATTEMPTS: u32 = 3;

/// One bucket of an S3 endpoint.
#[derive(Clone)]
pub struct Store {
    client: aws_sdk_s3::Client,
    bucket: String,
}

/// An object on its way out.
pub struct Object {
    /// Its length in bytes.
    pub length: u64,
    body: ByteStream,
}

impl Store {
    /// A store that connects when first used.
    #[must_use]
    pub fn new(endpoint: &str, bucket: &str, region: &str, access_key: &str, secret_key: &str) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .endpoint_url(endpoint)
            .region(Region::new(region.to_owned()))
            .credentials_provider(Credentials::new(access_key, secret_key, None, None, "settings"))
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(timeouts)
            .build();
        Self { client: aws_sdk_s3::Client::from_conf(config), bucket: bucket.to_owned() }
    }

    /// Stores a file; an object of this key is replaced.
    ///
    /// # Errors
    /// When the file cannot be read or the store refuses it.
    pub async fn put_file(&self, key: &str, path: &Path, content_type: &str) -> anyhow::Result<()> {
        let body = ByteStream::from_path(path).await.context("reading the file to store")?;
        let put = self.client.put_object().bucket(&self.bucket).key(key).content_type(content_type).body(body);
        put.send().await.map(drop).with_context(|| format!("storing {key}"))
    }

    /// Opens an object; `None` when there is none of this key.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn find(&self, key: &str) -> anyhow::Result<Option<Object>> {
        match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(found) => {
                let length = found.content_length().unwrap_or_default();
                let length = u64::try_from(length).context("an object of negative length")?;
                Ok(Some(Object { length, body: found.body }))
            }
            Err(SdkError::ServiceError(error)) if error.err().is_no_such_key() => Ok(None),
            Err(error) => Err(error).with_context(|| format!("opening {key}")),
        }
    }
}

impl Object {
    /// Its bytes as they arrive; a store that stalls ends them with an error.
    pub fn into_pieces(self) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
        futures::stream::try_unfold(self.body, async |mut body| {
            let piece = timeout(READ_TIMEOUT, body.try_next()).await.map_err(std::io::Error::from)?;
            Ok(piece.map_err(std::io::Error::other)?.map(|piece| (piece, body)))
        })
    }
}
