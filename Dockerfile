# docker build --tag smoothadv .
# docker run --rm --volume "$PWD/results:/smoothadv/results" smoothadv
#
# Runs make demo. Any other command may follow:
# docker run --rm --volume "$PWD/results:/smoothadv/results" smoothadv python -m pipeline.status grid=digits
FROM python:3.11.7-slim-bookworm

RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*

WORKDIR /smoothadv
COPY . .
# Versions are those of constraints.txt.
RUN make .venv/installed
ENV PATH=/smoothadv/.venv/bin:$PATH

CMD ["make", "demo"]
