//! The Kubernetes side: discovery of pods and the streams of their logs.
