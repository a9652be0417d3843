# Fits a line to noisy points by gradient descent with momentum. Standard awk, and no line about optstudy.
#
#   awk -v lr=0.1 -v momentum=0.9 -v seed=0 -v log_file=metrics.jsonl -f train.awk
BEGIN {
    srand(seed + 1)
    n = 200
    for (i = 1; i <= n; i++) {
        x[i] = 2 * rand() - 1
        y[i] = 3 * x[i] - 1 + (rand() - 0.5)
    }
    train = n / 2
    for (step = 0; step <= 50; step++) {
        loss = slope = offset = 0
        for (i = 1; i <= train; i++) {
            error = a * x[i] + b - y[i]
            loss += error * error / train
            slope += 2 * error * x[i] / train
            offset += 2 * error / train
        }
        printf "{\"step\": %d, \"loss\": %.6f}\n", step, loss > log_file
        da = momentum * da - lr * slope
        db = momentum * db - lr * offset
        a += da
        b += db
    }
    for (i = train + 1; i <= n; i++)
        held += (a * x[i] + b - y[i]) ^ 2 / (n - train)
    printf "{\"val_loss\": %.6f, \"step\": 50}\n", held
}
